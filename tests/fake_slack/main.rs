//! A Slack to try things with when there is no workspace at hand.
//!
//! It prints the settings that point a client at it, to be pasted, then serves until it is killed. `--port N` fixes the
//! port, `--lenient-rate` takes any number of messages, `--hang` answers none of them, `--log` prints one line for each
//! call, `--save FILE` keeps the body of the latest one. A line `click ACTION_ID [USER]` on stdin clicks the newest button
//! of that name; `reply THREAD_TS TEXT` answers in a thread, `react TS NAME` gives an emoji, `command TEXT` types
//! `/agent-task TEXT`. After `interactivity URL SECRET` clicks are told to that server, signed, and not by Socket Mode.

#[path = "mod.rs"]
mod fake_slack;

use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use fake_slack::{CHANNEL, FakeSlack, HUMAN, Request};

const USAGE: &str = "usage: fake-slack [--port N] [--lenient-rate] [--hang] [--log] [--save FILE]";
/// What may be said on stdin.
const WORDS: &str = "say on standard input:
  click ACTION_ID [USER]     click the newest button: question:approve, question:reject, question:choice:0, task:cancel
  reply THREAD_TS TEXT       write in a thread
  react TS NAME              add a reaction, such as white_check_mark or x
  command TEXT               type /agent-task TEXT
  interactivity URL SECRET   tell this server of clicks and commands, signed, and not by Socket Mode";

struct Options {
    port: u16,
    lenient_rate: bool,
    hang: bool,
    log: bool,
    save: Option<PathBuf>,
}

fn main() -> ExitCode {
    let Some(options) = parse(std::env::args().skip(1)) else {
        let _ = writeln!(io::stderr(), "{USAGE}\n\n{WORDS}");
        return ExitCode::from(64);
    };
    match serve(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "fake-slack: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Option<Options> {
    let mut options = Options { port: 0, lenient_rate: false, hang: false, log: false, save: None };
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--port" => options.port = args.next()?.parse().ok()?,
            "--lenient-rate" => options.lenient_rate = true,
            "--hang" => options.hang = true,
            "--log" => options.log = true,
            "--save" => options.save = Some(PathBuf::from(args.next()?)),
            other => options.port = other.strip_prefix("--port=")?.parse().ok()?,
        }
    }
    Some(options)
}

fn serve(options: &Options) -> io::Result<()> {
    let fake = FakeSlack::start_on(options.port)?;
    // For clients that others wrote.
    fake.set_whole_frames();
    if options.lenient_rate {
        fake.set_lenient_rate();
    }
    if options.hang {
        fake.hold();
    }
    let (log, save) = (options.log, options.save.clone());
    fake.observe(move |request| {
        if log {
            let _ = writeln!(io::stdout(), "{}", line(request));
        }
        if let Some(file) = &save {
            let _ = std::fs::write(file, &request.body);
        }
    });
    let mut out = io::stdout().lock();
    writeln!(out, "export SLACK_API_URL={}", fake.url())?;
    writeln!(out, "export SLACK_BOT_TOKEN={}", fake.token())?;
    writeln!(out, "export SLACK_APP_TOKEN={}", fake.app_token())?;
    writeln!(out, "\nor as a webhook:\nexport SLACK_WEBHOOK_URL={}\n", fake.webhook_url())?;
    out.flush()?;
    drop(out);
    for line in io::stdin().lock().lines() {
        let done = act(&fake, &line?);
        writeln!(io::stdout(), "{done}")?;
    }
    loop {
        std::thread::park();
    }
}

/// Does what a line on stdin says a person does; what came of it.
fn act(fake: &FakeSlack, line: &str) -> String {
    if let Some(text) = line.strip_prefix("command ") {
        return format!("{:?}", fake.command(CHANNEL, HUMAN, "/agent-task", text));
    }
    let mut words = line.splitn(3, ' ').filter(|word| !word.is_empty());
    match (words.next(), words.next(), words.next()) {
        (Some("click"), Some(action_id), user) => match fake.newest_with(action_id) {
            Some(message) => {
                format!("{:?}", fake.click_as_seen(&message, action_id, user.unwrap_or(HUMAN)))
            }
            None => format!("there is no button {action_id}"),
        },
        (Some("reply"), Some(thread), Some(text)) => fake.person_replies(CHANNEL, thread, HUMAN, text),
        (Some("react"), Some(ts), Some(name)) if fake.has_message(CHANNEL, ts) => {
            fake.person_reacts(CHANNEL, ts, HUMAN, name);
            "done".to_owned()
        }
        (Some("interactivity"), Some(url), Some(secret)) => {
            fake.interactivity(url, secret);
            "done".to_owned()
        }
        _ => WORDS.to_owned(),
    }
}

/// The method, the answer's status, the channel, the thread and the beginning of the text.
fn line(request: &Request) -> String {
    let part = |name: &str| request.args[name].as_str().unwrap_or("-");
    let text: String = part("text").chars().take(100).map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("{} {} {} {} {text}", request.name(), request.status, part("channel"), part("thread_ts"))
}
