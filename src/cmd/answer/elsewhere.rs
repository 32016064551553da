//! `answer` to a question of another machine, known by the database that both share.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::ask::{Signals, tell};
use super::super::interact::elsewhere::{end_of, said_here};
use super::super::{DAY, about_cache, environment, jitter, masking, now};
use super::{comment, login, tell_open, tell_over, too_late, word};
use crate::args::AnswerArgs;
use crate::audit::connect::Client;
use crate::audit::people::{self, Known};
use crate::checkpoint::audit::people::{PassedOn, TAKEN, WAITING, its_own, read_deciding};
use crate::checkpoint::question::rules::Refusal;
use crate::checkpoint::question::{RequestId, Word};
use crate::cmd::forward::{Forwarder, Stop};
use crate::config::Config;
use crate::config::identity::branch_and_host;
use crate::exit::{Exit, Failure};
use crate::store::Store;
use crate::ui::Ui;

/// How often to ask the database for an answer, give or take a quarter.
const LOOK: Duration = Duration::from_secs(2);
/// How long one look may take.
const LOOK_MAX: Duration = Duration::from_secs(5);
/// How often to look for a signal meanwhile.
const SIGNALS: Duration = Duration::from_millis(50);
/// How long to wait until whoever asks has taken what was said; it looks every two seconds.
const TAKE_MAX: Duration = Duration::from_secs(10);
/// How often to look whether it has.
const TAKE_LOOK: Duration = Duration::from_millis(300);

/// Does what `answer` is asked to do, where the question is not in the cache; `None` if it is, or the database does not
/// know it either.
pub(super) fn answer(
    config: &Arc<Config>,
    ui: &Ui,
    store: &mut Store,
    id: RequestId,
    args: &AnswerArgs,
) -> anyhow::Result<Option<Exit>> {
    let is_here =
        store.read(|tx| Ok(tx.question(id)?.is_some())).map_err(|error| about_cache(error.into(), config))?;
    let Some(forwarder) = (if is_here { None } else { Forwarder::new(config) }) else { return Ok(None) };
    let mut line = Line { config, ui, store, forwarder: &forwarder, client: None };
    let deadline = Instant::now() + config.deadline.min(DAY);
    let Some(known) = line.ask(id, deadline).map_err(|stop| away(id, &stop))? else { return Ok(None) };
    let said = word(args, &known.question)?;
    let end = end_of(&known, now());
    Ok(Some(match (end, said) {
        (Some(end), said) => {
            if let Some(word) = said {
                ui.wrong(too_late(&end), None);
                line.leave(&known, (word, args));
            }
            tell(config, ui, &known.question, &end)?
        }
        (None, Some(word)) => line.say(&known, (word, args))?,
        (None, None) if args.wait => line.wait(known)?,
        (None, None) => tell_open(config, ui, &known.question)?,
    }))
}

fn away(id: RequestId, stop: &Stop) -> Failure {
    let (why, hint) = match (stop.words(), stop) {
        (Some(words), _) => words,
        (None, Stop::Cache(error)) => (error.to_string(), "run agent-checkpoint doctor".to_owned()),
        (None, _) => (String::new(), "try again".to_owned()),
    };
    let message = format!("question {id} is not in the cache, and the database cannot be asked: {why}");
    Failure::new(Exit::NotYet, message).hint(hint)
}

/// A connection that is opened anew when it fails, and what is needed to speak over it and of it.
struct Line<'a> {
    config: &'a Config,
    ui: &'a Ui,
    store: &'a mut Store,
    forwarder: &'a Forwarder,
    client: Option<Client>,
}

impl Line<'_> {
    fn with<T>(
        &mut self,
        deadline: Instant,
        work: impl Fn(&mut Client) -> Result<T, crate::audit::Trouble>,
    ) -> Result<T, Stop> {
        if let Some(mut client) = self.client.take()
            && let Ok(done) = work(&mut client)
        {
            self.client = Some(client);
            return Ok(done);
        }
        let done = self.forwarder.call(deadline).and_then(|mut client| Ok((work(&mut client)?, client)));
        let (done, client) = self.forwarder.remember(self.store, done)?;
        self.client = Some(client);
        Ok(done)
    }

    fn ask(&mut self, id: RequestId, deadline: Instant) -> Result<Option<Known>, Stop> {
        self.with(deadline, |client| people::question(client, id, now, deadline))
    }

    /// Asks again and again until there is an end.
    fn wait(&mut self, mut known: Known) -> anyhow::Result<Exit> {
        let (signals, forwarder) = (Signals::heed(), self.forwarder);
        let id = known.question.id;
        loop {
            if let Some(end) = end_of(&known, now()) {
                return tell(self.config, self.ui, &known.question, &end);
            }
            let next = Instant::now() + LOOK.mul_f64(0.75 + jitter().clamp(0.0, 1.0) / 2.0);
            while Instant::now() < next {
                if let Some(signal) = signals.first() {
                    return Ok(Exit::Signal(signal));
                }
                thread::sleep(SIGNALS);
            }
            if self.store.read(|tx| forwarder.held_until(tx, now())).is_ok_and(|until| until.is_some()) {
                continue;
            }
            match self.ask(id, Instant::now() + LOOK_MAX) {
                Ok(Some(found)) => known = found,
                Ok(None) => {
                    let message = format!("question {id} is no longer in the database");
                    return Err(Failure::new(Exit::Failed, message).into());
                }
                Err(stop) => {
                    let failure = away(id, &stop);
                    self.ui.detail(&failure.message);
                    // Nobody can say any more whether it ended by that.
                    if known.question.is_over(now()) {
                        return Err(failure.into());
                    }
                }
            }
        }
    }

    /// Writes down a word that comes too late, as any other that changes nothing.
    fn leave(&mut self, known: &Known, said: (Word, &AnswerArgs)) {
        let refusal = known.answer.clone().map_or(Refusal::Over, Refusal::Late);
        let said = as_said(self.config, known, said).refused(refusal.name());
        let deadline = Instant::now() + self.config.deadline.min(LOOK_MAX);
        let left = self.with(deadline, |client| people::pass_on(client, &said, deadline));
        if let Err(Some((message, _))) = left.map_err(|stop| stop.words()) {
            self.ui.detail(&format!("could not write down that it came too late: {message}"));
        }
    }

    /// Passes a word on and waits a little until whoever asks has taken it.
    fn say(&mut self, known: &Known, said: (Word, &AnswerArgs)) -> anyhow::Result<Exit> {
        let id = known.question.id;
        let said = as_said(self.config, known, said);
        let deadline = Instant::now() + self.config.deadline.min(DAY);
        self.with(deadline, |client| people::pass_on(client, &said, deadline))
            .map_err(|stop| away(id, &stop))?;
        self.ui.note("passed on to the machine that asks");
        let by = Instant::now() + TAKE_MAX;
        while Instant::now() < by {
            thread::sleep(TAKE_LOOK);
            let deadline = Instant::now() + LOOK_MAX;
            let Ok(Some(text)) = self.with(deadline, |client| people::details(client, said.id, deadline))
            else {
                continue;
            };
            let details: Value = serde_json::from_str(&text).unwrap_or_default();
            if details["passed_on"] == WAITING {
                continue;
            }
            if let Some(refused) = details["refused"].as_str() {
                return self.refuse(known, refused);
            }
            if let Some(answer) = read_deciding(&text, None, now()).and_then(its_own(id)) {
                return tell(self.config, self.ui, &known.question, &answer);
            }
            if details["passed_on"] == TAKEN {
                self.ui.note("it counts, and others have to agree");
                return tell_open(self.config, self.ui, &known.question);
            }
        }
        self.ui.warn(
            "nobody has taken it yet: it counts as soon as the machine that asks looks into the database",
            None,
        );
        tell_open(self.config, self.ui, &known.question)
    }

    /// Says why a word that was taken changes nothing.
    fn refuse(&mut self, known: &Known, refused: &str) -> anyhow::Result<Exit> {
        let question = &known.question;
        let again = self.ask(question.id, Instant::now() + LOOK_MAX).ok().flatten();
        let end = again.as_ref().and_then(|again| end_of(again, now()));
        let (words, hint) = match (refused, end) {
            ("late", Some(end)) => {
                self.ui.wrong(too_late(&end), None);
                return tell(self.config, self.ui, question, &end);
            }
            ("again", _) => {
                self.ui.note("a terminal of another machine has said so before: others have to agree");
                return tell_open(self.config, self.ui, question);
            }
            ("over", _) => return tell_over(self.config, self.ui, question),
            ("not_offered", _) => {
                let is_plain = question.choices.is_empty();
                let hint = if is_plain { "give --approve or --reject" } else { "give one with --choice" };
                (Refusal::NotOffered.words(question), hint)
            }
            ("not_allowed", _) => {
                let named = question.approvers.join(", ");
                let words = format!(
                    "only {named} may answer this, and a terminal of another machine proves nobody's name"
                );
                (words, "answer in Slack, or on the machine that asks")
            }
            (other, _) => {
                let message = format!("it changes nothing: {other}");
                let hint = "answer in Slack, or on the machine that asks";
                return Err(Failure::new(Exit::Failed, message).hint(hint).into());
            }
        };
        Err(Failure::new(Exit::Usage, words).hint(hint).into())
    }
}

/// A word as it is said at this terminal.
fn as_said(config: &Config, known: &Known, (word, args): (Word, &AnswerArgs)) -> PassedOn {
    let (_, host) = branch_and_host(&environment, Path::new("/"));
    let user_name = format!("{} on {host}", login().unwrap_or_else(|| "somebody".to_owned()));
    let comment = comment(args).map(|text| masking::said(&config.masker(), &text));
    said_here(known, word, comment, Some(user_name))
}
