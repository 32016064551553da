//! What people want in words, by a slash command or a mention: the same for both.

#[cfg(feature = "postgres")]
use super::elsewhere::{self, Whereabouts};
use super::look::{KNOWN, Look};
use super::{Reply, cancel, conclude, launch, voter};
use crate::checkpoint::Task;
use crate::checkpoint::id::act_id;
use crate::checkpoint::parse::Thread;
use crate::checkpoint::question::Answer;
use crate::checkpoint::question::rules::{Voter, keeps_out};
use crate::checkpoint::time::Moment;
use crate::cmd::record;
use crate::config::Config;
use crate::interaction::grammar::{self, Named, Wish};
use crate::interaction::wire::{Command, Interaction, Mention};
use crate::render::told;
use crate::store::{Store, StoreError, Tx};

/// Something that somebody said to us.
#[derive(Debug)]
pub(super) struct Spoken {
    pub(super) id: String,
    pub(super) source: &'static str,
    pub(super) voter: Voter,
    pub(super) channel: String,
    /// Where it is answered; a slash command has no thread.
    pub(super) thread: Option<Thread>,
    /// What to type to say something else.
    call: String,
    text: String,
}

impl Spoken {
    /// `None` for a click.
    pub(super) fn of(interaction: &Interaction) -> Option<Self> {
        match interaction {
            Interaction::Click(_) => None,
            Interaction::Command(command) => Some(Self::typed(command)),
            Interaction::Mention(mention) => Some(Self::mentioned(mention)),
        }
    }

    fn typed(command: &Command) -> Self {
        Self {
            id: command.id.clone(),
            source: "command",
            // A command names one workspace: there is none to compare it with.
            voter: voter(&command.person, None),
            channel: command.channel_id.clone(),
            thread: None,
            call: command.command.clone(),
            text: command.text.clone(),
        }
    }

    fn mentioned(mention: &Mention) -> Self {
        let ts = mention.thread_ts.as_ref().unwrap_or(&mention.ts);
        Self {
            id: mention.id.clone(),
            source: "mention",
            voter: voter(&mention.person, mention.team_id.as_deref()),
            channel: mention.channel_id.clone(),
            thread: Some(Thread { channel: mention.channel_id.clone(), ts: ts.clone() }),
            call: "@bot".to_owned(),
            text: mention.text.clone(),
        }
    }
}

/// Does what somebody wants, once however often it is heard, and says what there is to say.
pub(super) fn obey(
    store: &mut Store,
    config: &Config,
    spoken: &Spoken,
    now: Moment,
) -> Result<Reply, StoreError> {
    let wish = grammar::read(&spoken.text);
    // Whom the app belongs to is nobody else's to look into.
    let stranger = keeps_out(&[], &spoken.voter).filter(|_| !is_named(config, &spoken.voter));
    #[cfg(feature = "postgres")]
    let mut is_unsure = false;
    #[cfg(feature = "postgres")]
    if let (Wish::Cancel(named), None) = (&wish, &stranger) {
        match elsewhere::pass_on_cancel(store, config, &named.agent, spoken)? {
            Whereabouts::Here => {}
            Whereabouts::Unsure => is_unsure = true,
            Whereabouts::Elsewhere(reply) => return Ok(reply),
        }
    }
    // How to have an agent do it all the same.
    let otherwise = |said: &str| match launch::hindrance(config) {
        None => told::otherwise(&spoken.call, said),
        Some(_) => String::new(),
    };
    store.write(|tx| {
        if !tx.hear(&spoken.id, now)? {
            return Ok(Reply::default());
        }
        if let Some(refusal) = &stranger {
            return Ok(say(refusal.words_to(&[])));
        }
        match &wish {
            Wish::Launch(text) => launch::ask(tx, config, spoken, &launch::Errand::of(config, text), now),
            Wish::List => Ok(see(Look::List)),
            Wish::Show(Named { agent, or }) => {
                let otherwise = or.as_deref().map(otherwise).unwrap_or_default();
                Ok(see(Look::Show { agent: agent.clone(), otherwise }))
            }
            Wish::Cancel(Named { agent, or }) => match tx.find(agent)? {
                Some(found) => {
                    let reply = cancel_task(tx, config, &found.task, spoken, now)?;
                    #[cfg(feature = "postgres")]
                    if is_unsure
                        && let Some(key) = reply.task.filter(|_| !reply.is_unattended)
                        && !tx.is_watched(key)?
                    {
                        let words = Some(elsewhere::as_far_as_known(&found.task, now));
                        return Ok(Reply { words, ..reply });
                    }
                    Ok(reply)
                }
                None => {
                    let otherwise = or.as_deref().map(otherwise).unwrap_or_default();
                    Ok(say(told::unknown(agent, &tx.latest_agents(KNOWN)?) + &otherwise))
                }
            },
            Wish::Either(verb, said) => Ok(say(told::meant(&spoken.call, verb) + &otherwise(said))),
            Wish::Mistyped(meant) => Ok(say(told::mistyped(&spoken.call, meant))),
            Wish::Help => {
                let launches = launch::hindrance(config);
                Ok(say(told::help(&spoken.call, launches.as_deref().map_or(Ok(()), Err))))
            }
        }
    })
}

pub(super) fn say(words: impl Into<String>) -> Reply {
    Reply { words: Some(words.into()), ..Reply::default() }
}

fn see(look: Look) -> Reply {
    Reply { look: Some(look), ..Reply::default() }
}

fn is_named(config: &Config, voter: &Voter) -> bool {
    voter.user_id.as_ref().is_some_and(|id| config.named_approvers().contains(id))
}

/// By the same rules as the button; a request for an agent that nobody has approved is withdrawn at once.
fn cancel_task(
    tx: &Tx<'_>,
    config: &Config,
    task: &Task,
    spoken: &Spoken,
    now: Moment,
) -> Result<Reply, StoreError> {
    let reply =
        cancel(tx, config.approvers.as_ref(), task, &spoken.voter, (spoken.source, act_id(&spoken.id)), now)?;
    let Some(key) = reply.task else {
        let unreadable = "Nobody may do that: `AGENT_CHECKPOINT_APPROVERS` cannot be read.";
        return Ok(if reply.words.is_some() { reply } else { say(unreadable) });
    };
    for put in tx.questions_of(key)? {
        if put.asked.question.launch.is_some() && put.asked.answer.is_none() {
            let who = spoken.voter.name();
            conclude(
                tx,
                &record::policy(config),
                put.key,
                &Answer::withdrawn(&format!("cancelled by {who}"), now),
                now,
            )?;
            return Ok(Reply {
                words: Some("The request is withdrawn.".to_owned()),
                is_unattended: true,
                ..reply
            });
        }
    }
    Ok(reply)
}
