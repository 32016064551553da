use proptest::prelude::*;

use super::*;
use crate::checkpoint::id::CheckpointId;
use crate::checkpoint::outbox::Delivery;
use crate::checkpoint::parse::Artifact;
use crate::checkpoint::status::TaskState;

fn checkpoint(action: &str, meta: &[(&str, &str)]) -> AuditCheckpoint {
    let at = Moment(1_772_357_400_000);
    AuditCheckpoint {
        key: CheckpointKey(7),
        task: TaskId::new(at),
        agent_id: "bot".to_owned(),
        is_first: false,
        asks: None,
        decides: None,
        checkpoint: Checkpoint {
            key: Some(CheckpointKey(7)),
            id: CheckpointId::new(at),
            status: Status::Working,
            progress: 40,
            tokens: None,
            context_limit: 200_000,
            action: Some(action.to_owned()),
            error: None,
            tail: None,
            artifacts: vec![Artifact { name: None, target: "a".to_owned() }; 2],
            meta: meta.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            elapsed_ms: 0,
            created_at: at,
            delivery: Delivery::Off,
            delivery_error: None,
            message_ts: None,
        },
    }
}

fn task(snapshot: Snapshot, updated_at: i64) -> AuditTask {
    let at = Moment(1_000);
    let blank = Task::blank(TaskId::new(at), "bot".to_owned(), "deploy".to_owned(), at);
    AuditTask {
        task: Task { snapshot, updated_at: Moment(updated_at), ..blank },
        newest: CheckpointKey(7),
        shared_thread_ts: None,
        request: None,
    }
}

/// The row as it comes back from the database.
fn read_back(row: TaskRow) -> StoredRow {
    StoredRow {
        id: Uuid::parse_str(&row.id).expect("an id"),
        agent_id: row.agent_id,
        task_type: row.task_type,
        task_name: Some(row.task_name),
        repo_scope: row.repo_scope,
        status: row.status.to_owned(),
        progress: row.progress,
        slack_channel: row.slack_channel,
        slack_thread_ts: row.slack_thread_ts,
        created_at: row.started_at,
        started_at: Some(row.started_at),
        completed_at: row.completed_at,
        updated_at: row.updated_at,
        metadata: Some(row.metadata),
    }
}

#[test]
fn what_a_checkpoint_became_says_its_type() {
    for (status, is_first, kind) in [
        (Status::Working, true, "start"),
        (Status::Complete, true, "start"),
        (Status::Complete, false, "complete"),
        (Status::Cancelled, false, "complete"),
        (Status::Error, false, "error"),
        (Status::Blocked, false, "progress"),
    ] {
        let mut told = checkpoint("x", &[]);
        (told.checkpoint.status, told.is_first) = (status, is_first);
        assert_eq!(told.row(ClockOffset(0)).checkpoint_type, kind, "{status:?} {is_first}");
    }
}

#[test]
fn a_callers_key_of_our_name_takes_nothing_from_us() {
    let row = checkpoint("x", &[("agent_checkpoint", "mine"), ("k", "v")]).row(ClockOffset(0));
    let metadata: Value = serde_json::from_str(&row.metadata).expect("JSON");
    let ours = json!({ "seq": 7, "meta": { "agent_checkpoint": "mine" } });
    assert_eq!(metadata, json!({ "k": "v", "agent_checkpoint": ours }));
}

#[test]
fn ids_of_what_was_made_stay_the_same_and_differ() {
    let told = checkpoint("x", &[]);
    let ids = |told: &AuditCheckpoint| -> Vec<String> {
        told.artifacts(ClockOffset(0)).into_iter().map(|made| made.id).collect()
    };
    assert_eq!(ids(&told), ids(&told));
    assert_ne!(ids(&told)[0], ids(&told)[1]);
    for id in ids(&told) {
        let id = Uuid::parse_str(&id).expect("an id");
        assert_eq!(id.get_version_num(), 7);
        assert_eq!(id.get_timestamp(), told.checkpoint.id.0.get_timestamp());
    }
}

#[test]
fn a_buttons_secret_that_somebody_made_up_is_none() {
    let ours = crate::checkpoint::question::nonce();
    for (secret, is_one) in
        [(ours.clone(), true), ("x".repeat(3000), false), (String::new(), false), (format!("{ours}0"), false)]
    {
        let snapshot = Snapshot { cancel: Some(secret.clone()), ..Snapshot::blank() };
        let metadata = json!({ "agent_checkpoint": { "snapshot": snapshot } }).to_string();
        let row =
            StoredRow { status: "running".to_owned(), metadata: Some(metadata), ..StoredRow::default() };
        assert_eq!(row.task(ClockOffset(0)).task.snapshot.cancel.is_some(), is_one, "{secret}");
    }
}

#[test]
fn a_row_of_another_program_is_a_task_to_go_on_in() {
    for metadata in [None, Some("[1]"), Some("\"text\""), Some("{\"agent_checkpoint\": 3}"), Some("nonsense")]
    {
        let row = StoredRow {
            agent_id: "bot".to_owned(),
            task_type: "test".to_owned(),
            task_name: Some("Tests".to_owned()),
            status: "approved".to_owned(),
            progress: 130,
            created_at: 5_000,
            metadata: metadata.map(str::to_owned),
            ..StoredRow::default()
        };
        let SharedTask { task, latest } = row.task(ClockOffset(1_000));
        assert_eq!(
            (task.state, task.started_at, latest),
            (TaskState::Running, Moment(4_000), None),
            "{metadata:?}"
        );
        assert_eq!((task.snapshot.progress, task.snapshot.name.as_deref()), (100, Some("Tests")));
    }
}

#[test]
fn what_was_not_said_is_inherited_and_what_was_said_stands() {
    let elder = Snapshot {
        name: Some("Deploy".to_owned()),
        progress: 30,
        tokens: Some(5),
        steps: vec!["a".to_owned()],
        ..Snapshot::blank()
    };
    let mut blank = Snapshot { steps: vec!["b".to_owned()], ..Snapshot::blank() };
    inherit(&mut blank, &elder);
    assert_eq!((blank.name.as_deref(), blank.progress, blank.tokens), (Some("Deploy"), 30, Some(5)));
    assert_eq!(blank.steps, ["a", "b"]);
    let mut said =
        Snapshot { name: Some("Other".to_owned()), progress: 60, tokens: Some(9), ..Snapshot::blank() };
    inherit(&mut said, &elder);
    assert_eq!((said.name.as_deref(), said.progress, said.tokens), (Some("Other"), 60, Some(9)));
}

proptest! {
    /// Whatever was said, the server can store it, and nothing of it is lost.
    #[test]
    fn any_text_can_be_stored_and_is_whole(action in ".{0,60}", key in ".{1,20}", value in ".{0,60}") {
        let (action, value) = (format!("{action}\0"), format!("{value}\u{0}\\u0000"));
        let row = checkpoint(&action, &[(&key, &value)]).row(ClockOffset(0));
        prop_assert_eq!(row.action_description, Some(action.replace('\0', "\u{fffd}")));
        prop_assert!(!row.metadata.contains('\0'));
        let metadata: Value = serde_json::from_str(&row.metadata).expect("JSON");
        prop_assert!(!metadata.to_string().replace("\\\\", "").contains("\\u0000"));
        if key != OURS {
            let said = metadata[key.replace('\0', "\u{fffd}")].as_str().map(str::to_owned);
            prop_assert_eq!(said, Some(value.replace('\0', "\u{fffd}")));
        }
    }

    /// A task comes back from the database as it was told, however long its names are and however wrong the clock is.
    #[test]
    fn a_task_comes_back_as_it_was(
        name in "[a-zé ]{1,600}", repo in "[a-z/]{1,300}", progress in 0_u8..=100, offset in -9_000_000_i64..9_000_000,
    ) {
        let snapshot = Snapshot {
            name: Some(name), repo: Some(repo), progress, status: Status::Working, ..Snapshot::blank()
        };
        let told = task(snapshot, 20_000_000);
        let mut before = told.task.clone();
        before.started_at = Moment(10_000_000);
        let told = AuditTask { task: before.clone(), ..told };
        let back = read_back(told.row("cache", ClockOffset(offset))).task(ClockOffset(offset));
        prop_assert_eq!(back.latest.map(|latest| (latest.cache, latest.key)), Some(("cache".to_owned(), 7)));
        prop_assert_eq!(back.task, before);
    }
}
