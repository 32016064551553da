//! Opening: old, new and foreign files, and what a commit is worth.

use std::os::unix::fs::PermissionsExt;

use rusqlite::config::DbConfig;

use super::*;
use crate::checkpoint::Card;
use crate::checkpoint::context::Level;
use crate::checkpoint::outbox::{Delivery, EntryKind};
use crate::checkpoint::parse::Artifact;
use crate::checkpoint::snapshot::{Excerpt, Snapshot};
use crate::checkpoint::status::TaskState;

const SCHEMA_1: &str = include_str!("../../../tests/fixtures/schema-1.sql");

const SCHEMA_2: &str = include_str!("../../../tests/fixtures/schema-2.sql");
const SCHEMA_3: &str = include_str!("../../../tests/fixtures/schema-3.sql");
const SCHEMA_4: &str = include_str!("../../../tests/fixtures/schema-4.sql");
const SCHEMA_5: &str = include_str!("../../../tests/fixtures/schema-5.sql");
const SCHEMA_6: &str = include_str!("../../../tests/fixtures/schema-6.sql");

/// Every kind of schema that was ever released, and a cache of that time.
const RELEASED: &[&str] = &[SCHEMA_1, SCHEMA_2, SCHEMA_3, SCHEMA_4, SCHEMA_5, SCHEMA_6];

/// A database made from SQL, with nothing left in its log.
fn database(sql: &str) -> (TempDir, PathBuf) {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("cache.db");
    let connection = Connection::open(&path).expect("a database");
    connection.execute_batch(sql).expect("good SQL");
    (dir, path)
}

fn open(path: &Path) -> Result<Opened, OpenError> {
    Store::open_at(path, seconds(1))
}

fn schema_of(connection: &Connection) -> Vec<(String, String)> {
    let mut statement = connection
        .prepare("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name")
        .expect("a statement");
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("rows");
    rows.collect::<Result<_, _>>().expect("rows")
}

#[test]
fn a_cache_of_schema_1_opens_with_every_row() {
    let (_dir, path) = database(SCHEMA_1);
    let mut store = open(&path).expect("an old cache").store;
    assert_eq!(schema::version_of(&store.connection).expect("a version"), schema::version());

    let find =
        |store: &mut Store, agent: &str| store.read(|tx| tx.find(agent)).expect("a search").expect("a task");
    let deploy = find(&mut store, "deploy-bot");
    let artifacts = vec![
        Artifact { name: Some("PR".to_owned()), target: "https://example.com/1".to_owned() },
        Artifact { name: None, target: "out/report.txt".to_owned() },
    ];
    let task = &deploy.task;
    assert_eq!(
        task.snapshot,
        Snapshot {
            status: Status::Working,
            progress: 45,
            name: Some("Deploy Feature X".to_owned()),
            repo: Some("acme/rocket".to_owned()),
            tokens: Some(150_000),
            context_limit: 200_000,
            context: Level::Warn,
            context_told: Level::Warn,
            action: Some(Excerpt::of("Trying again")),
            error: None,
            tail: None,
            steps: ["Starting deployment", "Running tests", "Trying again"].map(str::to_owned).to_vec(),
            artifacts: artifacts.clone(),
            artifact_count: 2,
            elapsed_ms: 45,
            listens: None,
            cancel: None,
            children: Vec::new(),
        }
    );
    assert_eq!((task.agent_id.as_str(), task.task_type.as_str()), ("deploy-bot", "task"));
    assert_eq!((task.state, task.ended_at), (TaskState::Running, None));
    assert_eq!(task.id.to_string(), "01a210cb-1e9a-7cde-b748-2e68e6d5fc32");
    assert_eq!(
        (task.channel.as_deref(), task.channel_id.as_deref()),
        (Some("#agent-supervisory"), Some("C0AGENT000"))
    );
    assert_eq!(task.thread_ts.as_deref(), Some("1795578076.835290"));
    assert_eq!(task.card, Card::At("1795578076.835290".to_owned()));
    assert_eq!(task.credential, Some(Credential::stored("bot::8c87c2dff0cd5966bc8fae867aec2a69".to_owned())));
    assert_eq!(task.last_message_at, Some(Moment(1_795_578_076_846)));
    assert_eq!((task.started_at, task.updated_at), (Moment(1_795_578_076_826), Moment(1_795_578_076_871)));
    let held = Wait {
        count: 1,
        kind: EntryKind::Post,
        due_at: Moment(1_795_578_106_846),
        since: Moment(1_795_578_076_871),
        reason: None,
    };
    assert_eq!((deploy.checkpoints, deploy.waiting, deploy.rejected), (3, Some(held), None));

    let key = task.key.expect("a stored task");
    let checkpoints = store.read(|tx| tx.checkpoints(key)).expect("checkpoints");
    let deliveries: Vec<_> =
        checkpoints.iter().map(|checkpoint| (checkpoint.status, checkpoint.delivery)).collect();
    assert_eq!(
        deliveries,
        [
            (Status::Starting, Delivery::Sent),
            (Status::Error, Delivery::Sent),
            (Status::Working, Delivery::Coalesced)
        ]
    );
    let failed = &checkpoints[1];
    assert_eq!(
        *failed,
        Checkpoint {
            key: failed.key,
            id: failed.id,
            status: Status::Error,
            progress: 40,
            tokens: Some(150_000),
            context_limit: 200_000,
            action: Some("Running tests".to_owned()),
            error: Some("exit code 1".to_owned()),
            tail: None,
            artifacts,
            meta: [("commit".to_owned(), "1a2b3c4".to_owned())].into(),
            elapsed_ms: 20,
            created_at: Moment(1_795_578_076_846),
            delivery: Delivery::Sent,
            delivery_error: None,
            message_ts: Some("1795578076.855090".to_owned()),
        }
    );
    assert_eq!(failed.id.to_string(), "01a210cb-1eae-7ea8-a71c-68977a73bf15");

    let refused = find(&mut store, "review-bot").rejected.expect("a refusal");
    assert_eq!((refused.count, refused.reason.as_deref()), (1, Some("channel_not_found")));
    let waiting = find(&mut store, "offline-bot").waiting.expect("one that waits");
    assert_eq!(
        (waiting.count, waiting.reason.as_deref()),
        (1, Some("connection to 127.0.0.1:1 failed: connection refused"))
    );
    let printed = find(&mut store, "printed-bot");
    assert_eq!((printed.task.credential, printed.task.channel), (None, None));
    assert_eq!((printed.checkpoints, printed.waiting, printed.rejected), (1, None, None));
}

#[test]
fn a_released_migration_is_never_edited() {
    assert_eq!(
        RELEASED.len(),
        schema::MIGRATIONS.len(),
        "add a dump of a cache of the new schema to tests/fixtures and to this list"
    );
    for (index, sql) in RELEASED.iter().enumerate() {
        let version = index + 1;
        let (_dir, path) = database(sql);
        let released = schema_of(&Connection::open(path).expect("a database"));
        let mut fresh = Connection::open_in_memory().expect("a database");
        schema::apply(&mut fresh, &schema::MIGRATIONS[..version]).expect("good migrations");
        assert_eq!(
            schema_of(&fresh),
            released,
            "migration {version} differs from what caches in the field were made with: \
             put it back, and write the change as a new migration at the end of the list"
        );
    }
}

#[test]
fn a_migration_that_fails_half_way_changes_nothing() {
    let (_dir, path) = database(SCHEMA_1);
    let mut connection = Connection::open(&path).expect("a database");
    let rows = |connection: &Connection| -> Vec<i64> {
        ["tasks", "checkpoints", "entries", "paces", "couriers"]
            .map(|table| {
                let sql = format!("SELECT count(*) FROM {table}");
                connection.query_row(&sql, [], |row| row.get(0)).expect("a count")
            })
            .to_vec()
    };
    let before = (schema_of(&connection), rows(&connection));
    let broken = [
        schema::MIGRATIONS[0],
        "ALTER TABLE tasks ADD COLUMN place TEXT; DELETE FROM checkpoints; UPDATE tasks SET place = 'here';",
        "CREATE TABLE notes (key INTEGER PRIMARY KEY); INSERT INTO nowhere VALUES (1);",
    ];
    schema::apply(&mut connection, &broken).expect_err("the third migration is wrong");
    assert_eq!(schema::version_of(&connection).expect("a version"), 1);
    assert_eq!((schema_of(&connection), rows(&connection)), before);
    drop(connection);
    // What it was, it still is: a cache that opens.
    assert!(open(&path).is_ok());
}

#[test]
fn migrations_begin_where_the_file_stands_and_never_go_back() {
    let (_dir, path) = database(SCHEMA_1);
    let mut connection = Connection::open(&path).expect("a database");
    let version = |connection: &Connection| schema::version_of(connection).expect("a version");
    let longer = [schema::MIGRATIONS[0], "CREATE TABLE notes (text TEXT);"];
    schema::apply(&mut connection, &longer).expect("good migrations");
    assert_eq!(version(&connection), 2);
    // An older program that comes late finds the work done.
    schema::apply(&mut connection, &longer[..1]).expect("nothing to do");
    assert_eq!(version(&connection), 2);
    connection.query_row("SELECT count(*) FROM notes", [], |_| Ok(())).expect("the new table");
}

#[test]
fn a_file_that_is_not_ours_to_change_is_refused_untouched() {
    let foreign = "CREATE TABLE bookmarks (url TEXT); INSERT INTO bookmarks VALUES ('https://example.com');";
    let newer = format!("PRAGMA user_version = {};", schema::version() + 1);
    for (sql, reason) in [
        (foreign.to_owned(), "it is another program's database".to_owned()),
        (
            format!("{SCHEMA_1} {newer}"),
            format!(
                "it has schema {}, written by a newer agent-checkpoint (this one knows {})",
                schema::version() + 1,
                schema::version()
            ),
        ),
        (
            format!("{foreign} PRAGMA journal_mode = wal; {newer}"),
            format!(
                "it has schema {}, written by a newer agent-checkpoint (this one knows {})",
                schema::version() + 1,
                schema::version()
            ),
        ),
    ] {
        let (dir, path) = database(&sql);
        let before = fs::read(&path).expect("the file");
        let error = open(&path).expect_err("not ours");
        assert_eq!(error.to_string(), format!("could not use cache {}: {reason}", path.display()));
        assert_eq!(fs::read(&path).expect("the file"), before, "{reason}");
        let beside: Vec<_> =
            fs::read_dir(dir.path()).expect("a listing").flatten().map(|e| e.file_name()).collect();
        assert!(!beside.iter().any(|name| name.to_string_lossy().contains("corrupt")), "{beside:?}");
    }
}

#[test]
fn a_damaged_file_is_set_aside_whole_and_a_fresh_cache_takes_its_place() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("cache.db");
    let garbage = b"not a database, but long enough to be looked at as one".repeat(100);
    fs::write(&path, &garbage).expect("a file");
    let opened = open(&path).expect("a fresh cache");
    let aside = opened.set_aside.expect("the damaged file");
    assert!(aside.to_string_lossy().contains("cache.db.corrupt-"), "{aside:?}");
    assert_eq!(fs::read(&aside).expect("the damaged file"), garbage);
    assert_eq!(opened.store.path(), path);
    // The next one finds nothing to do.
    assert_eq!(open(&path).expect("a cache").set_aside, None);
}

#[test]
fn an_old_cache_that_is_found_damaged_while_it_is_brought_up_to_date_is_set_aside_as_well() {
    let (_dir, path) = database(SCHEMA_2);
    let page =
        "SELECT rootpage, (SELECT page_size FROM pragma_page_size) FROM sqlite_master WHERE name = 'tasks'";
    let (page, size): (u32, u32) = Connection::open(&path)
        .expect("a database")
        .query_row(page, [], |row| Ok((row.get(0)?, row.get(1)?)))
        .expect("a table");
    let mut damaged = fs::read(&path).expect("the file");
    let place = |page: u32| usize::try_from(page * size).expect("a small file");
    damaged[place(page - 1)..place(page)].fill(0);
    fs::write(&path, &damaged).expect("a file");
    let aside = open(&path).expect("a fresh cache").set_aside.expect("the damaged file");
    assert!(aside.to_string_lossy().contains("cache.db.corrupt-"), "{aside:?}");
    assert_eq!(open(&path).expect("a cache").set_aside, None);
}

#[test]
fn whoever_holds_the_lock_for_ever_keeps_nobody_waiting_for_ever() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("cache.db");
    let _held = crate::store::repair::guard(&path, seconds(1)).expect("the lock");
    let error =
        Store::open_at(&path, std::time::Duration::from_millis(20)).expect_err("a cache in the making");
    assert!(error.to_string().ends_with("it is kept busy by another process"), "{error}");
}

#[test]
fn a_fresh_cache_is_for_its_owner_alone() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("state/deep/cache.db");
    let mut store = open(&path).expect("a fresh cache").store;
    store.write(|_| Ok(())).expect("a write");
    let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    assert_eq!(
        (mode(&path), mode(&dir.path().join("state/deep")), mode(&dir.path().join("state"))),
        (0o600, 0o700, 0o700)
    );
    for companion in ["-wal", "-shm", ".lock"] {
        assert_eq!(mode(&repair::with_suffix(&path, companion)), 0o600, "{companion}");
    }
}

#[test]
fn what_was_committed_survives_a_power_loss() {
    let mut cache = Cache::new();
    let pragmas = |cache: &Cache| {
        let ask = |pragma: &str| -> String {
            let sql = format!("SELECT CAST({pragma} AS TEXT) FROM pragma_{pragma}");
            cache.store.connection.query_row(&sql, [], |row| row.get(0)).expect(pragma)
        };
        [ask("journal_mode"), ask("synchronous"), ask("fullfsync")]
    };
    // 2 is FULL: the log is synced at every commit.
    let durable = ["wal", "2", "1"].map(str::to_owned);
    assert_eq!(pragmas(&cache), durable);
    cache.say("a", Status::Working);
    assert_eq!(pragmas(&cache), durable);
    cache.store.write_relaxed(|_| Ok(())).expect("a write");
    assert_eq!(pragmas(&cache), durable, "one relaxed write relaxes no other");
    let failed: Result<(), _> = cache.store.write_relaxed(|tx| {
        tx.connection.execute("INSERT INTO nowhere VALUES (1)", []).map(drop).map_err(Into::into)
    });
    assert_eq!(failed.expect_err("no such table").to_string(), "no such table: nowhere");
    assert_eq!(pragmas(&cache), durable, "not even one that fails");
    // Another process reads the file as it finds it.
    let other = open(&cache.path()).expect("the same cache").store;
    assert!(other.connection.db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE).expect("a switch"));
    cache.store = other;
    assert_eq!(pragmas(&cache), durable);
}

#[test]
fn a_write_that_fails_leaves_nothing_behind() {
    let mut cache = Cache::new();
    let task = cache.say("a", Status::Working).task;
    let before = (cache.task(task), cache.checkpoints(task), cache.entries());
    let now = cache.now;
    let failed: Result<(), _> = cache.store.write(|tx| {
        tx.insert_entry(task, EntryKind::Card, Priority::Routine, None, None, now, now)?;
        tx.connection.execute("UPDATE tasks SET state = 'failed'", [])?;
        tx.connection.execute("INSERT INTO nowhere VALUES (1)", []).map(drop).map_err(Into::into)
    });
    assert!(failed.is_err());
    assert_eq!((cache.task(task), cache.checkpoints(task), cache.entries()), before);
}

#[test]
fn the_log_is_kept_short() {
    let mut cache = Cache::new();
    // Nobody reads the making of the tables.
    assert_eq!(fs::metadata(repair::with_suffix(&cache.path(), "-wal")).expect("a log").len(), 0);
    for _ in 0..100 {
        cache.say("a", Status::Blocked);
    }
    let log = fs::metadata(repair::with_suffix(&cache.path(), "-wal")).expect("a log").len();
    assert!(log <= WAL_MAX + 64 * 4120, "{log} bytes");
}

#[test]
fn a_cache_behind_a_link_has_its_companions_beside_itself() {
    let dir = TempDir::new().expect("a directory");
    let (link, place) = (dir.path().join("cache.db"), dir.path().join("elsewhere"));
    fs::create_dir(&place).expect("a directory");
    // One link after the other, and at first there is nothing behind them.
    std::os::unix::fs::symlink("second.db", &link).expect("a link");
    std::os::unix::fs::symlink("elsewhere/real.db", dir.path().join("second.db")).expect("a link");
    for n in 0..100 {
        let mut store = open(&link).expect("a cache").store;
        let name = format!("{n} {}", "x".repeat(5000));
        let insert = "INSERT INTO prunings VALUES (?1, 1)";
        store
            .write(|tx| tx.connection.execute(insert, [&name]).map(drop).map_err(Into::into))
            .expect("a row");
    }
    let log = fs::metadata(place.join("real.db-wal")).expect("a log").len();
    assert!(log <= WAL_MAX + 64 * 4120, "{log} bytes");

    for suffix in ["-wal", "-shm"] {
        fs::remove_file(place.join(format!("real.db{suffix}"))).expect("our own file");
    }
    fs::write(place.join("real.db"), "damaged").expect("our own file");
    let set_aside = open(&link).expect("a cache").set_aside.expect("it was damaged");
    assert_eq!(set_aside.parent(), Some(&*place));
    assert!(link.is_symlink());
    let names = |path: &Path| {
        let names = fs::read_dir(path).expect("a directory").flatten().map(|entry| entry.file_name());
        let mut names: Vec<_> = names.filter_map(|name| name.into_string().ok()).collect();
        names.retain(|name| !name.contains("corrupt"));
        names.sort();
        names
    };
    assert_eq!(names(dir.path()), ["cache.db", "elsewhere", "second.db"]);
    assert_eq!(names(&place), ["real.db", "real.db-shm", "real.db-wal", "real.db.lock"]);
}
