//! `answer`: the state of a question, from any process; or the answer itself, for when Slack is down.

#[cfg(feature = "postgres")]
mod elsewhere;

use std::sync::Arc;
use std::time::Instant;

use super::ask::{Signals, Vigil, look_once, report, tell};
use super::deliver::Sender;
use super::forward::Forwarder;
use super::interact::{self, Heard, Hearing};
use super::worker::{self, Worker};
use super::{DAY, about_cache, configure, courier, environment, now, open_or_fail, record, report_problems};
use crate::args::{AnswerArgs, BackgroundChoice, GlobalArgs};
use crate::checkpoint::question::rules::{Kind, Refusal, Ruling, Voter};
use crate::checkpoint::question::{Answer, Decision, Question, RequestId, Word};
use crate::config::{Config, Flags};
use crate::exit::{Exit, Failure};
use crate::store::{Put, Scope, Store};
use crate::ui::Ui;

pub(super) fn run(global: &GlobalArgs, args: &AnswerArgs) -> anyhow::Result<Exit> {
    let (config, ui) = configure(global, Flags::default())?;
    report_problems(&config, &ui);
    let config = Arc::new(config);
    let mut store = open_or_fail(&config, &ui)?;
    record::bury_all(&mut store, &config, &ui);
    let id = RequestId::parse(&args.id).ok_or_else(|| {
        Failure::new(Exit::Usage, format!("ID: '{}' is not the id of a request", args.id))
            .hint(format!("copy the id that ask tells, or look it up with {}", lookup(&config)))
    })?;
    #[cfg(feature = "postgres")]
    if let Some(exit) = elsewhere::answer(&config, &ui, &mut store, id, args)? {
        return Ok(exit);
    }
    let mut put = find(&mut store, id).map_err(|error| about_cache(error, &config))?;
    let is_look = !(args.wait || args.approve || args.reject || args.choice.is_some());
    if is_look && put.asked.answer.is_none() {
        // Nobody may have looked since it was asked.
        #[cfg(feature = "postgres")]
        interact::elsewhere::look_once(&config, &ui, &mut store, &put);
        if put.asked.question.polled {
            look_once(&config, &ui, &mut store, &put);
        }
        put = find(&mut store, id).map_err(|error| about_cache(error, &config))?;
        if put.asked.answer.is_some() {
            show(&config, &ui, &mut store, &put);
        }
    }
    let question = put.asked.question.clone();
    if let Some(word) = word(args, &question)? {
        return decide(&config, &ui, store, &put, word, args);
    }
    match &put.asked.answer {
        Some(answer) => tell(&config, &ui, &question, answer),
        None if args.wait => {
            let signals = Signals::heed();
            let mut vigil = Vigil::new(&config, &ui, store, put, None, false);
            let ended = vigil.keep(&signals).map_err(|error| about_cache(error.into(), &config))?;
            vigil.finish();
            report(&config, &ui, &question, ended)
        }
        None => tell_open(&config, &ui, &question),
    }
}

/// What shows a question's id; with a database those of other machines too.
fn lookup(config: &Config) -> &'static str {
    match config.has_audit() {
        true => "agent-checkpoint show AGENT --fleet",
        false => "agent-checkpoint show AGENT",
    }
}

/// Says of a question whose time is over, although nobody has noted that yet, that what comes now is too late.
fn tell_over(config: &Config, ui: &Ui, question: &Question) -> anyhow::Result<Exit> {
    ui.wrong("its time is over", None);
    tell(config, ui, question, &Answer::bare(Decision::TimedOut, question.expires_at))
}

/// Why what is said now changes nothing.
fn too_late(answer: &Answer) -> &'static str {
    match answer.decision {
        Decision::TimedOut => "its time is over",
        Decision::Withdrawn => "it was withdrawn before",
        Decision::Approved | Decision::Rejected | Decision::Chosen => "it was answered before",
    }
}

/// Says that nobody has decided yet.
fn tell_open(config: &Config, ui: &Ui, question: &Question) -> anyhow::Result<Exit> {
    if config.json {
        ui.answer(&question.json(None, now()).to_string())?;
    } else {
        ui.note(&format!("open for another {}", question.time_left(now())));
        ui.answer("open")?;
    }
    Ok(Exit::NotYet)
}

fn find(store: &mut Store, id: RequestId) -> anyhow::Result<Put> {
    let put = store.read(|tx| tx.question(id))?;
    put.ok_or_else(|| {
        Failure::new(Exit::Failed, format!("no question {id}"))
            .hint("it may be in another cache, or older than what is kept")
            .into()
    })
}

/// What the flags say to the question.
fn word(args: &AnswerArgs, question: &Question) -> Result<Option<Word>, Failure> {
    match (args.approve, args.reject, &args.choice) {
        (true, ..) => Ok(Some(Word::Approve)),
        (_, true, _) => Ok(Some(Word::Reject)),
        (.., Some(label)) => {
            let same = |choice: &String| choice.to_lowercase() == label.trim().to_lowercase();
            let index = question.choices.iter().position(same);
            index.map(|index| Some(Word::Choice(index))).ok_or_else(|| {
                let hint = if question.choices.is_empty() {
                    "answer with --approve or --reject".to_owned()
                } else {
                    format!("choose one of {}", question.choices.join(", "))
                };
                Failure::new(Exit::Usage, format!("--choice: '{label}' is not offered")).hint(hint)
            })
        }
        _ if args.comment.is_some() => Err(Failure::new(Exit::Usage, "--comment says nothing by itself")
            .hint("give it with --approve, --reject or --choice")),
        _ => Ok(None),
    }
}

/// The name of whoever runs commands on this machine, as the environment has it.
fn login() -> Option<String> {
    let name = |variable| environment(variable)?.into_string().ok().filter(|name| !name.is_empty());
    name("USER").or_else(|| name("LOGNAME"))
}

/// What whoever answers here is called. Nothing proves the name, so that it says where it comes from.
fn at_terminal() -> String {
    format!("{} (at a terminal)", login().unwrap_or_else(|| "somebody".to_owned()))
}

fn comment(args: &AnswerArgs) -> Option<String> {
    args.comment.as_ref().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Answers as whoever runs commands on this machine.
fn decide(
    config: &Arc<Config>,
    ui: &Ui,
    mut store: Store,
    put: &Put,
    word: Word,
    args: &AnswerArgs,
) -> anyhow::Result<Exit> {
    let heard = Heard {
        id: None,
        source: "terminal",
        voter: Voter { kind: Kind::Here, user_id: None, user_name: Some(at_terminal()) },
        request: put.asked.question.id,
        button: None,
        word,
        comment: comment(args),
    };
    let (policy, masker) = (record::policy(config), config.masker());
    let hearing = Hearing { policy: &policy, masker: &masker, starts_here: false };
    let verdict = store
        .write(|tx| interact::vote(tx, &hearing, &heard, now()))
        .map_err(|error| about_cache(error.into(), config))?;
    let question = &put.asked.question;
    let answer = match verdict {
        Some(Ok(verdict)) => match verdict.ruling {
            Ruling::Decides(answer) => answer,
            Ruling::Refused(Refusal::Late(answer)) => {
                ui.wrong(too_late(&answer), None);
                return tell(config, ui, question, &answer);
            }
            Ruling::Refused(Refusal::Over) => return tell_over(config, ui, question),
            Ruling::Refused(Refusal::NotOffered) => {
                let flag = if args.reject { "--reject" } else { "--approve" };
                return Err(Failure::new(Exit::Usage, format!("{flag}: the question offers choices"))
                    .hint(format!("give one with --choice: {}", question.choices.join(", ")))
                    .into());
            }
            Ruling::Refused(refusal) => {
                return Err(Failure::new(Exit::Usage, refusal.words(question))
                    .hint("see agent-checkpoint answer --help")
                    .into());
            }
            Ruling::Counts { have, need } => {
                ui.note(&format!("{have} of {need} agree so far"));
                return Ok(Exit::NotYet);
            }
        },
        Some(Err(_)) | None => {
            return Err(Failure::new(Exit::Failed, format!("no question {}", question.id)).into());
        }
    };
    show(config, ui, &mut store, put);
    tell(config, ui, question, &answer)
}

/// Has the answer shown in Slack; a courier does what there is no time for.
fn show(config: &Config, ui: &Ui, store: &mut Store, put: &Put) {
    let by = Instant::now() + config.deadline.min(DAY);
    if config.background != BackgroundChoice::Always
        && let Some(sender) = Sender::new(config, false, None)
        && let Some(worker) =
            Worker::start((Some(sender.watched(ui)), Forwarder::new(config)), config.cache.as_deref())
    {
        worker.wake();
        worker.finish(worker::End {
            by,
            persistent: false,
            soon: worker::SOON,
            scopes: vec![Scope::Task(put.task)],
        });
    }
    courier::leave_the_rest(store, config, ui);
}
