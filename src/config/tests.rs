//! Which source a setting comes from, and what a wrong one does.

use tempfile::TempDir;

use super::*;
use crate::args::GlobalArgs;
use crate::delivery::Destination;

/// A config file and an env-file, named by flags so that no file of this machine is read.
struct Files {
    dir: TempDir,
}

impl Files {
    fn new(config: &str, env_file: &str) -> Self {
        let dir = TempDir::new().expect("a directory");
        std::fs::write(dir.path().join("config.toml"), config).expect("a file");
        std::fs::write(dir.path().join("env"), env_file).expect("a file");
        Self { dir }
    }

    fn resolve(&self, flags: Flags, variables: &[(&str, &str)]) -> Result<Config, Failure> {
        let global = GlobalArgs {
            config: Some(self.dir.path().join("config.toml")),
            env_file: Some(self.dir.path().join("env")),
            ..GlobalArgs::default()
        };
        let env = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        };
        resolve(&global, flags, &env)
    }
}

#[test]
fn flag_before_environment_before_env_file_before_config_file_before_default() {
    let config =
        "agent_id = 'file'\nmin_interval = '4s'\nchannel = '#file'\ncontext_warn = 54\nstrict = true\n";
    let env_file = "AGENT_CHECKPOINT_AGENT_ID=envfile\nAGENT_CHECKPOINT_MIN_INTERVAL=3s\n\
                    SLACK_CHANNEL=#envfile\nAGENT_CHECKPOINT_CONTEXT_WARN=53\n";
    let variables = [
        ("AGENT_CHECKPOINT_AGENT_ID", "environment"),
        ("AGENT_CHECKPOINT_MIN_INTERVAL", "2s"),
        ("SLACK_CHANNEL", "#environment"),
        ("AGENT_CHECKPOINT_CONTEXT_WARN", "52"),
    ];
    let flags = || Flags {
        agent_id: Some("flag".to_owned()),
        min_interval: Some(Duration::from_secs(1)),
        channel: Some("#flag".to_owned()),
        context_warn: Some(51),
        ..Flags::default()
    };
    for (config, env_file, variables, flags, expected) in [
        (config, env_file, &variables[..], flags(), (Some("flag"), 1, "#flag", 51, true)),
        (config, env_file, &variables, Flags::default(), (Some("environment"), 2, "#environment", 52, true)),
        (config, env_file, &[], Flags::default(), (Some("envfile"), 3, "#envfile", 53, true)),
        (config, "", &[], Flags::default(), (Some("file"), 4, "#file", 54, true)),
        ("", "", &[], Flags::default(), (None, 30, "#agent-supervisory", 70, false)),
    ] {
        let config = Files::new(config, env_file).resolve(flags, variables).expect("good settings");
        assert_eq!(config.problems, []);
        let Config { agent_id, min_interval, default_channel, thresholds, strict, .. } = config;
        assert_eq!(
            (
                agent_id.as_deref(),
                min_interval.as_secs(),
                default_channel.as_deref().unwrap_or_default(),
                thresholds.warn,
                strict
            ),
            expected
        );
    }
}

#[test]
fn a_wrong_tuning_value_falls_back_and_a_wrong_destination_waits() {
    let token = ("SLACK_BOT_TOKEN", "xoxb-fake-token");
    let webhook = ("SLACK_WEBHOOK_URL", "https://hooks.slack.com/services/T1/B2/s3cret");
    let is_broken = |config: &Config| matches!(config.target, Target::Broken);
    // (settings, whether the destination waits, whether the channel is known, how the problem begins)
    for (variables, broken, channel, problem) in [
        (vec![token], false, true, None),
        (
            vec![token, ("AGENT_CHECKPOINT_MIN_INTERVAL", "soon")],
            false,
            true,
            Some("AGENT_CHECKPOINT_MIN_INTERVAL: 'soon' is not a length of time; using the default"),
        ),
        (
            vec![token, ("SLACK_CHANNEL", "two words")],
            true,
            false,
            Some("SLACK_CHANNEL: 'two words' is not a channel; messages wait until it is mended"),
        ),
        (
            vec![token, ("SLACK_API_URL", "slack")],
            true,
            true,
            Some("SLACK_API_URL: 'slack' is not a URL; messages wait until it is mended"),
        ),
        (
            vec![token, ("AGENT_CHECKPOINT_THREAD", "C1")],
            true,
            false,
            Some("AGENT_CHECKPOINT_THREAD: 'C1' is not a thread; messages wait until it is mended"),
        ),
        // A wrong token is not shown, and the webhook does not take its place.
        (
            vec![("SLACK_BOT_TOKEN", "xoxb s3cret"), webhook],
            true,
            true,
            Some("SLACK_BOT_TOKEN: the value is not a token; messages wait until it is mended"),
        ),
        (
            vec![("SLACK_BOT_TOKEN", "file:/nowhere/token"), webhook],
            true,
            true,
            Some("SLACK_BOT_TOKEN: the value names the file '/nowhere/token', which could not be read: "),
        ),
        (
            vec![("SLACK_WEBHOOK_URL", "https://hooks.slack.com/triggers/T1/2/s3cret")],
            true,
            true,
            Some("SLACK_WEBHOOK_URL: the value is a Workflow Builder trigger, which takes no messages; "),
        ),
    ] {
        let config = Files::new("", "").resolve(Flags::default(), &variables).expect("no flag is wrong");
        assert_eq!(
            (is_broken(&config), config.default_channel.is_some()),
            (broken, channel),
            "{variables:?}"
        );
        let problems: Vec<_> = config.problems.iter().map(|problem| problem.message.as_str()).collect();
        assert_eq!(problems.len(), usize::from(problem.is_some()), "{problems:?}");
        for (found, begins) in problems.iter().zip(problem) {
            assert!(found.starts_with(begins), "{found}");
            assert!(!found.contains("s3cret"), "{found}");
        }
        assert_eq!((config.is_wrong(), config.insist().is_err()), (problem.is_some(), problem.is_some()));
    }
}

#[test]
fn an_app_token_and_a_signing_secret_that_are_none_are_named_but_not_shown() {
    let wrong = "; nothing that people do in Slack is heard by it until it is mended";
    for (name, value, reason) in [
        ("SLACK_APP_TOKEN", "xapp-1-A0-s3cret", None),
        ("SLACK_APP_TOKEN", "", None),
        ("SLACK_APP_TOKEN", "xoxb-s3cret", Some("is a bot token")),
        ("SLACK_APP_TOKEN", "s3cret", Some("is not an app-level token")),
        ("SLACK_APP_TOKEN", "xapp-s3cret two", Some("is not a token")),
        ("SLACK_SIGNING_SECRET", "8f742231b10es3cret", None),
        ("SLACK_SIGNING_SECRET", "xapp-1-s3cret", Some("is a token, not a signing secret")),
        ("SLACK_SIGNING_SECRET", "xoxb-s3cret", Some("is a token, not a signing secret")),
        ("SLACK_SIGNING_SECRET", "s3cret two", Some("is not a signing secret")),
    ] {
        let config =
            Files::new("", "").resolve(Flags::default(), &[(name, value)]).expect("no flag is wrong");
        let problems: Vec<_> = config.problems.iter().map(|problem| problem.message.clone()).collect();
        let expected: Vec<_> =
            reason.iter().map(|reason| format!("{name}: the value {reason}{wrong}")).collect();
        assert_eq!(problems, expected, "{value}");
        let used = [&config.app_token, &config.signing_secret].into_iter().flatten().count();
        assert_eq!(used, usize::from(reason.is_none() && !value.is_empty()), "{value}");
        // Wrong or not, it is masked wherever it turns up.
        assert_eq!(config.secrets.len(), usize::from(!value.is_empty()), "{value}");
    }
    let files = Files::new("", "");
    let path = files.dir.path().join("app-token");
    std::fs::write(&path, "xapp-1-from-file\n").expect("a file");
    let config = files
        .resolve(Flags::default(), &[("SLACK_APP_TOKEN", &format!("file:{}", path.display()))])
        .expect("no flag is wrong");
    assert_eq!(config.app_token.as_ref().map(Secret::reveal), Some("xapp-1-from-file"));
}

#[test]
fn a_bot_token_goes_before_a_webhook() {
    let token = ("SLACK_BOT_TOKEN", "xoxb-fake-token");
    let webhook = ("SLACK_WEBHOOK_URL", "https://hooks.slack.com/services/T1/B2/s3cret");
    let target = |variables: &[(&str, &str)]| {
        Files::new("", "").resolve(Flags::default(), variables).expect("good settings").target
    };
    assert!(matches!(target(&[]), Target::Nowhere));
    assert!(matches!(target(&[webhook]), Target::Slack(Destination::Webhook { .. })));
    for (set, used) in [
        (vec![token, webhook], "https://slack.com/api/"),
        (vec![token, ("SLACK_API_URL", "https://slack-gov.com/api")], "https://slack-gov.com/api/"),
    ] {
        let Target::Slack(Destination::Bot { token, api_url }) = target(&set) else { panic!("{set:?}") };
        assert_eq!((token.reveal(), api_url.as_str()), ("xoxb-fake-token", used));
    }
}

#[test]
fn every_secret_is_known_to_be_masked_and_shown_nowhere() {
    let variables = [
        ("SLACK_BOT_TOKEN", "xoxb-s3cret-1"),
        ("SLACK_SIGNING_SECRET", "s3cret-2"),
        ("SLACK_APP_TOKEN", "xapp-s3cret-3"),
        ("DATABASE_URL", "postgres://ana:s3cret-4@db/x"),
        ("HTTPS_PROXY", "http://ana:s3cret-5@proxy:8080"),
    ];
    let config = Files::new("", "").resolve(Flags::default(), &variables).expect("good settings");
    let known: Vec<_> = config.secrets.iter().map(Secret::reveal).collect();
    assert_eq!(
        known,
        [
            "xoxb-s3cret-1",
            "s3cret-2",
            "xapp-s3cret-3",
            "s3cret-4",
            "postgres://ana:s3cret-4@db/x",
            "s3cret-5"
        ]
    );
    let shown = format!("{:?} {:?}", config.settings(), config);
    assert!(!shown.contains("s3cret"), "{shown}");
}

#[test]
fn a_file_that_a_flag_names_must_be_good() {
    for (config, env_file, problem) in [
        ("agent_id = \"s3cret", "", "config.toml: line 1: "),
        ("\n\nagent_id =", "", "config.toml: line 3: "),
        ("agent_id = 's3cret'\nagent_id = 's3cret'", "", "config.toml: line 2: duplicate key"),
        ("", "SLACK_CHANNEL=#a\nno assignment s3cret", "env: line 2 is not KEY=VALUE"),
        ("min_interval = [1]", "", "config.toml: min_interval is a list"),
    ] {
        let failure = Files::new(config, env_file).resolve(Flags::default(), &[]).expect_err("a wrong file");
        let words = format!("{failure:?}");
        assert!(words.contains(problem) && !words.contains("s3cret"), "{words}");
    }
    let files = Files::new(
        "agent_name = 'x'\nmin_interval = 'soon'\n",
        "export AGENT_CHECKPOINT_DEADLINE='7s' # why\n",
    );
    let config = files.resolve(Flags::default(), &[]).expect("a readable file");
    assert_eq!(config.deadline, Duration::from_secs(7));
    let problems: Vec<_> =
        config.problems.iter().map(|problem| (problem.harmless, &problem.message)).collect();
    let path = files.dir.path().join("config.toml");
    assert_eq!(
        problems,
        [
            (true, &format!("unknown setting 'agent_name' in {}", path.display())),
            (
                false,
                &format!(
                    "min_interval in {}: 'soon' is not a length of time; using the default",
                    path.display()
                )
            ),
        ]
    );
}

#[test]
fn certificates_are_found_from_any_directory() {
    // A courier leaves its caller's.
    let variables = [("SSL_CERT_FILE", "ca.pem"), ("SSL_CERT_DIR", "certs:/etc/certs")];
    let config = Files::new("", "").resolve(Flags::default(), &variables).expect("good settings");
    let authorities = config.network.authorities;
    let here = std::env::current_dir().expect("a directory");
    assert_eq!(authorities.file, Some(here.join("ca.pem")));
    let dirs = std::env::join_paths([here.join("certs"), "/etc/certs".into()]).expect("no colon in them");
    assert_eq!(authorities.dirs, Some(dirs));
}

#[test]
fn the_warning_never_lies_above_the_alert() {
    const WARN: &str = "AGENT_CHECKPOINT_CONTEXT_WARN";
    const ALERT: &str = "AGENT_CHECKPOINT_CONTEXT_ALERT";
    let flags = |context_warn, context_alert| Flags { context_warn, context_alert, ..Flags::default() };
    for (config, variables, flags, expected, problem) in [
        ("", &[][..], flags(None, None), (70, 85), None),
        ("", &[], flags(Some(80), Some(80)), (80, 80), None),
        // A default gives way.
        ("", &[], flags(Some(90), None), (90, 90), None),
        ("", &[(ALERT, "60")], flags(None, None), (60, 60), None),
        // What somebody asked for does not; what is wrong falls back to its default.
        (
            "",
            &[(WARN, "90"), (ALERT, "80")],
            flags(None, None),
            (90, 90),
            Some("AGENT_CHECKPOINT_CONTEXT_ALERT: '80' lies below the warning at 90; using the default"),
        ),
        (
            "",
            &[(WARN, "90")],
            flags(None, Some(80)),
            (70, 80),
            Some("AGENT_CHECKPOINT_CONTEXT_WARN: '90' lies above the alert at 80; using the default"),
        ),
        ("context_warn = 90\ncontext_alert = 80\n", &[], flags(Some(50), None), (50, 80), None),
        ("context_alert = 80\n", &[], flags(Some(82), None), (82, 85), Some("context_alert in ")),
    ] {
        let config = Files::new(config, "").resolve(flags, variables).expect("no wrong flag");
        assert_eq!((config.thresholds.warn, config.thresholds.alert), expected);
        let problems: Vec<&str> = config.problems.iter().map(|problem| &*problem.message).collect();
        assert_eq!(problems.len(), usize::from(problem.is_some()), "{problems:?}");
        assert!(problem.is_none_or(|problem| problems[0].starts_with(problem)), "{problems:?}");
    }
    let refused = Files::new("", "").resolve(flags(Some(90), Some(80)), &[]).expect_err("a wrong flag");
    assert_eq!(refused.to_string(), "--context-warn: '90' lies above --context-alert, 80");
}
