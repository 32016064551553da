//! Where settings are looked up: environment, env-file and config file, in that order.

use std::cell::RefCell;
#[cfg(feature = "postgres")]
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use directories::ProjectDirs;
#[cfg(feature = "postgres")]
use nix::unistd::{Uid, User};

#[cfg(feature = "serve")]
use super::credentials::serve_token;
use super::credentials::{api_url, app_token, bot_token, signing_secret, webhook_url};
#[cfg(feature = "postgres")]
use super::database::{self, Audit};
use super::file::{self, Layer};
#[cfg(feature = "serve")]
use super::keys::SERVE_TOKEN;
use super::keys::{
    CONFIG_ENV, ENV_FILE_ENV, Found, Key, Origin, SLACK_API_URL, SLACK_APP_TOKEN, SLACK_BOT_TOKEN,
    SLACK_SIGNING_SECRET, SLACK_WEBHOOK_URL,
};
#[cfg(feature = "postgres")]
use super::keys::{DATABASE_URL, NEON_DATABASE_URL};
use super::resolve::{absolute, masker_of};
use super::{DEFAULT_API_URL, Environment, Problem, Target};
use crate::args::GlobalArgs;
use crate::checkpoint::parse::{self, Invalid};
use crate::delivery::Destination;
use crate::exit::{Exit, Failure, cause, one_line};
use crate::secret::Secret;
#[cfg(feature = "postgres")]
use crate::trust::Authorities;

/// Reads a value and puts it where it belongs. Of no type of its own, so that what is done around it, which is much more,
/// is not there once for each kind of value.
type Reader<'a> = &'a mut dyn FnMut(&str) -> Result<(), Invalid>;

/// A value is there, but not fit for use; the problem is already noted.
#[derive(Debug)]
pub(super) struct Unusable;

/// The places where settings are looked up, and what was found wrong on the way.
pub(super) struct Sources<'a> {
    env: Environment<'a>,
    /// Env-file and config file, in that order; `None` for one that could not be read.
    layers: Vec<Option<Layer>>,
    pub(super) problems: Vec<Problem>,
    /// Which of the problems are files that could not be read.
    unreadable: Vec<usize>,
    pub(super) origins: Vec<(&'static str, String, Origin)>,
}

impl<'a> Sources<'a> {
    pub(super) fn new(env: Environment<'a>) -> Self {
        Self { env, layers: Vec::new(), problems: Vec::new(), unreadable: Vec::new(), origins: Vec::new() }
    }
}

impl Sources<'_> {
    /// Reads env-file and config file.
    pub(super) fn read_files(
        &mut self,
        global: &GlobalArgs,
        dirs: Option<&ProjectDirs>,
    ) -> Result<(Option<PathBuf>, Option<PathBuf>), Failure> {
        let named = |flag: &Option<PathBuf>, variable: &str| match flag {
            Some(path) => Some((path.clone(), true)),
            None => {
                (self.env)(variable).filter(|path| !path.is_empty()).map(|path| (PathBuf::from(path), false))
            }
        };
        let env_file = named(&global.env_file, ENV_FILE_ENV);
        let config_file = named(&global.config, CONFIG_ENV);
        // A relative HOME means another place in each directory; its like below XDG_CONFIG_HOME is ignored already.
        let default = || Some(dirs?.config_dir().join("config.toml")).filter(|path| path.is_absolute());

        let env_path = match env_file {
            Some((path, by_flag)) => self.layer(path, by_flag, file::read_env_file)?,
            None => None,
        };
        let config_path = match config_file {
            Some((path, by_flag)) => self.layer(path, by_flag, file::read_config_file)?,
            None => match default() {
                Some(path) if path.exists() => self.layer(path, false, file::read_config_file)?,
                _ => None,
            },
        };
        Ok((env_path, config_path))
    }

    fn layer(
        &mut self,
        path: PathBuf,
        by_flag: bool,
        read: fn(&Path) -> Result<Layer, file::Unreadable>,
    ) -> Result<Option<PathBuf>, Failure> {
        let path = absolute(path);
        match read(&path) {
            Ok(layer) => {
                self.problems.extend(layer.warnings());
                self.layers.push(Some(layer));
            }
            Err(file::Unreadable { message, hint }) if by_flag => {
                return Err(Failure::new(Exit::Usage, message).hint(hint));
            }
            Err(file::Unreadable { message, hint }) => {
                self.unreadable.push(self.problems.len());
                self.problems.push(Problem { message, hint, harmless: false });
                self.layers.push(None);
            }
        }
        Ok(Some(path))
    }

    /// Says what follows from files that could not be read, once it is known whether messages can go anywhere.
    pub(super) fn tell_of_unreadable_files(&mut self, messages_wait: bool) {
        let consequence =
            if messages_wait { "messages wait until it is mended" } else { "going on without it" };
        for index in self.unreadable.drain(..) {
            let message = &mut self.problems[index].message;
            *message = format!("{message}; {consequence}");
        }
    }

    /// A setting's text and where it came from: environment, then files.
    fn find(&self, key: Key) -> Option<Found> {
        if let Some(value) = (self.env)(key.env) {
            return Some((value.into_string(), Origin::Environment));
        }
        self.layers.iter().flatten().find_map(|layer| layer.find(key))
    }

    /// The same, unless it may have stood in a file that could not be read.
    fn find_for_certain(&self, key: Key) -> Result<Option<Found>, Unusable> {
        if (self.env)(key.env).is_none() {
            for layer in &self.layers {
                match layer.as_ref().map(|layer| layer.find(key)) {
                    None => return Err(Unusable),
                    Some(None) => {}
                    Some(found) => return Ok(found),
                }
            }
        }
        Ok(self.find(key))
    }

    /// A variable of the environment or the env-file that is not one of our settings.
    pub(super) fn plain_env(&self, name: &str) -> Option<String> {
        (self.env)(name)
            .and_then(|value| value.into_string().ok())
            .or_else(|| self.layers.iter().flatten().find_map(|l| l.variable(name)))
    }

    pub(super) fn note(&mut self, key: Key, shown: &str, origin: Origin) {
        let shown = if key.secret { "(set)".to_owned() } else { shown.to_owned() };
        self.origins.push((key.file, shown, origin));
    }

    fn wrong(
        &mut self,
        key: Key,
        text: &str,
        origin: &Origin,
        invalid: &Invalid,
        (consequence, harmless): (&str, bool),
    ) {
        let name = match origin {
            Origin::ConfigFile(path) => format!("{} in {}", key.file, path.display()),
            Origin::EnvFile(path) => format!("{} in {}", key.env, path.display()),
            _ => key.env.to_owned(),
        };
        // A token that was put into the wrong variable is quoted too.
        let quoted = || format!("'{}'", one_line(&clip(&masker_of(self.env).mask(text))));
        let value = if key.secret { "the value".to_owned() } else { quoted() };
        self.problems.push(Problem {
            message: format!("{name}: {value} {}; {consequence}", invalid.reason),
            hint: invalid.hint.clone(),
            harmless,
        });
    }

    /// A setting that has a sensible default: a wrong value falls back to it, and so does an empty one.
    pub(super) fn tuning<T>(&mut self, key: Key, read: impl Fn(&str) -> Result<T, Invalid>) -> Option<T> {
        let mut value = None;
        self.tune(key, &mut |text| {
            value = Some(read(text)?);
            Ok(())
        });
        value
    }

    /// The same, whatever the value is.
    fn tune(&mut self, key: Key, read: Reader<'_>) {
        let Some((text, origin)) = self.find(key) else { return };
        let (text, outcome) = match text {
            Ok(text) if is_unset(&text) => return,
            Ok(text) => {
                let outcome = parse::free_text(&text).and_then(|text| read(&text));
                (text, outcome)
            }
            Err(raw) => (raw.to_string_lossy().into_owned(), Err(not_utf8())),
        };
        match outcome {
            Ok(()) => self.note(key, &text, origin),
            Err(invalid) => self.wrong(key, &text, &origin, &invalid, ("using the default", false)),
        }
    }

    /// A setting that says where messages go: a wrong value is never replaced by another.
    pub(super) fn destination<T>(
        &mut self,
        key: Key,
        read: impl Fn(&str) -> Result<T, Invalid>,
    ) -> Result<Option<T>, Unusable> {
        self.destination_or(key, read, "messages wait until it is mended", false)
    }

    /// The same, where a wrong value has another consequence, which may be harmless.
    pub(super) fn destination_or<T>(
        &mut self,
        key: Key,
        read: impl Fn(&str) -> Result<T, Invalid>,
        consequence: &str,
        harmless: bool,
    ) -> Result<Option<T>, Unusable> {
        let mut value = None;
        let read: Reader<'_> = &mut |text| {
            value = Some(read(text)?);
            Ok(())
        };
        self.direct(key, read, consequence, harmless)?;
        Ok(value)
    }

    /// The same, whatever the value is.
    fn direct(
        &mut self,
        key: Key,
        read: Reader<'_>,
        consequence: &str,
        harmless: bool,
    ) -> Result<(), Unusable> {
        match self.find_for_certain(key)? {
            None => Ok(()),
            Some((Ok(text), _)) if is_unset(&text) => Ok(()),
            Some((Ok(text), origin)) => {
                match self.reveal(key, text).and_then(|text| read(&text).map(|()| text)) {
                    Ok(text) => {
                        self.note(key, &text, origin);
                        Ok(())
                    }
                    Err(invalid) => {
                        let text = self.find(key).and_then(|(text, _)| text.ok()).unwrap_or_default();
                        self.wrong(key, &text, &origin, &invalid, (consequence, harmless));
                        Err(Unusable)
                    }
                }
            }
            Some((Err(raw), origin)) => {
                self.wrong(key, &raw.to_string_lossy(), &origin, &not_utf8(), (consequence, harmless));
                Err(Unusable)
            }
        }
    }

    /// The signing secret and the app-level token: how what people do in Slack is heard. One that is wrong is not used,
    /// and as secret as one that is right.
    pub(super) fn inbound(&mut self, secrets: &mut Vec<Secret>) -> (Option<Secret>, Option<Secret>) {
        let consequence = "nothing that people do in Slack is heard by it until it is mended";
        let mut one = |key: Key, read: fn(&str) -> Result<Secret, Invalid>| {
            let aside = RefCell::new(None);
            let read = |text: &str| {
                *aside.borrow_mut() = Some(Secret::new(text.to_owned()));
                read(text)
            };
            let found = self.destination_or(key, read, consequence, false);
            secrets.extend(aside.into_inner());
            found.ok().flatten()
        };
        (one(SLACK_SIGNING_SECRET, signing_secret), one(SLACK_APP_TOKEN, app_token))
    }

    /// A secret that this build does not use.
    #[cfg(not(all(feature = "postgres", feature = "serve")))]
    pub(super) fn unused_secret(&mut self, key: Key) -> Option<Secret> {
        let read = |text: &str| parse::free_text(text).map(Secret::new);
        self.destination_or(key, read, "nothing uses it yet", true).unwrap_or_default()
    }

    /// What readers of `serve` must show. One that is wrong is a warning to all others, and its own problem for `serve`.
    #[cfg(feature = "serve")]
    pub(super) fn serve_token(&mut self, secrets: &mut Vec<Secret>) -> Result<Option<Secret>, Problem> {
        let found = self.destination_or(SERVE_TOKEN, serve_token, "only serve uses it", true);
        match (&found, self.find(SERVE_TOKEN)) {
            (Ok(token), _) => secrets.extend(token.clone()),
            // One that is wrong is as secret.
            (Err(Unusable), Some((Ok(text), _))) => secrets.push(Secret::new(text)),
            (Err(Unusable), _) => {}
        }
        found.map_err(|Unusable| {
            self.problems.last().cloned().unwrap_or_else(|| Problem {
                message: format!("{}: the file that may hold it could not be read", SERVE_TOKEN.env),
                hint: "make the file readable".to_owned(),
                harmless: true,
            })
        })
    }

    /// Follows `file:PATH` for a secret.
    fn reveal(&self, key: Key, text: String) -> Result<String, Invalid> {
        let text = text.trim().to_owned();
        let Some(path) = text.strip_prefix("file:").filter(|_| key.secret) else { return Ok(text) };
        let content = file::read_small(Path::new(path)).map_err(|error| {
            let hint = if path.starts_with(['~', '$']) {
                "write the whole path: nothing is expanded in it"
            } else {
                "make the file readable"
            };
            Invalid::new(format!("names the file '{path}', which could not be read: {}", cause(&error)), hint)
        })?;
        let content = String::from_utf8(content).map_err(|_| not_utf8())?;
        let content = content.trim();
        if content.is_empty() {
            return Err(Invalid::new(
                format!("names the file '{path}', which is empty"),
                "write the secret into the file",
            ));
        }
        Ok(content.to_owned())
    }

    /// `DATABASE_URL` before `NEON_DATABASE_URL`, which never replaces one that is wrong.
    #[cfg(feature = "postgres")]
    pub(super) fn audit(&mut self, authorities: &Authorities, secrets: &mut Vec<Secret>) -> Audit {
        let mut variables = BTreeMap::new();
        variables.extend(
            database::VARIABLES
                .iter()
                .filter_map(|(variable, _)| Some((*variable, self.plain_env(variable)?))),
        );
        let around = database::Surroundings {
            variables,
            home: self.plain_env("HOME").filter(|home| !home.is_empty()).map(PathBuf::from),
            user: || User::from_uid(Uid::effective()).ok().flatten().map(|user| user.name),
            authorities: authorities.clone(),
        };
        let mut audit = Audit::Off;
        for key in [DATABASE_URL, NEON_DATABASE_URL] {
            let aside = RefCell::new((Vec::new(), Vec::new()));
            let read = |text: &str| {
                let database::Read { database, secrets: mut found, warnings } = database::read(text, &around);
                // One that is wrong, or not used, is as secret.
                found.push(Secret::new(text.to_owned()));
                *aside.borrow_mut() = (found, warnings);
                database
            };
            let found = match audit {
                Audit::Off => {
                    self.destination_or(key, read, "the database is not used until it is mended", false)
                }
                _ => self.destination_or(key, read, "DATABASE_URL is used", true),
            };
            let (found_secrets, warnings) = aside.into_inner();
            secrets.extend(found_secrets);
            if matches!(audit, Audit::Off) {
                self.problems.extend(warnings);
                audit = match found {
                    Ok(None) => Audit::Off,
                    Ok(Some(database)) => Audit::Database(database.into()),
                    Err(Unusable) => Audit::Broken,
                };
            }
        }
        audit
    }

    /// Bot token before webhook; neither replaces the other when it is wrong.
    pub(super) fn target(&mut self, secrets: &mut Vec<Secret>) -> Target {
        let token = self.destination(SLACK_BOT_TOKEN, bot_token);
        let api_url = self.destination(SLACK_API_URL, api_url);
        let webhook = match token {
            Ok(Some(_)) => self.destination_or(SLACK_WEBHOOK_URL, webhook_url, "the bot token is used", true),
            _ => self.destination(SLACK_WEBHOOK_URL, webhook_url),
        };
        secrets.extend(token.as_ref().ok().cloned().flatten());
        secrets.extend(webhook.as_ref().ok().cloned().flatten());
        match (token, webhook) {
            (Ok(Some(token)), _) => match api_url {
                Ok(url) => {
                    let mut api_url = url.unwrap_or_else(|| DEFAULT_API_URL.to_owned());
                    if !api_url.ends_with('/') {
                        api_url.push('/');
                    }
                    Target::Slack(Destination::Bot { token, api_url })
                }
                Err(Unusable) => Target::Broken,
            },
            (Err(Unusable), _) | (Ok(None), Err(Unusable)) => Target::Broken,
            (Ok(None), Ok(Some(url))) => Target::Slack(Destination::Webhook { url }),
            (Ok(None), Ok(None)) => Target::Nowhere,
        }
    }
}

/// An empty value is how scripts and CI systems spell "not set"; it takes a setting back to its default.
fn is_unset(text: &str) -> bool {
    text.trim().is_empty()
}

/// Enough of a wrong value to recognise it by.
fn clip(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn not_utf8() -> Invalid {
    Invalid::new("is not valid UTF-8", "write it in UTF-8")
}
