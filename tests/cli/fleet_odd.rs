//! What other programs have written into the tables, as people are shown it.

use serde_json::Value;

use crate::fleet_reads::prepared;
use crate::support::Sandbox;

/// The longest line that a person is shown.
const LINE_MAX: usize = 5000;

#[test]
fn a_time_at_infinity_is_shown_as_none_and_never_as_another() {
    let (cluster, database, url) = prepared();
    let fleet = |args: &[&str]| {
        Sandbox::new().cmd([args, &["--fleet"]].concat()).env("DATABASE_URL", &url).run().success()
    };
    // Of the checkpoints the second one has its time in its id.
    cluster.sql_in(
        &database,
        "INSERT INTO agent_tasks (id, agent_id, task_type, task_name, status, created_at, started_at, updated_at)
         VALUES ('80000000-0000-4000-8000-000000000001', 'bot', 'other', 'Theirs', 'running', '-infinity', '-infinity',
                 'infinity'),
                ('80000000-0000-4000-8000-000000000002', 'tool', 'other', 'Theirs', 'running', '2026-03-01 09:30Z',
                 '-infinity', 'infinity'),
                ('80000000-0000-4000-8000-000000000007', 'unending', 'other', 'Theirs', 'running', now(), now(), now()),
                ('80000000-0000-4000-8000-000000000006', 'ahead', 'other', 'Theirs', 'running', 'infinity', 'infinity',
                 'infinity');
         UPDATE agent_tasks SET started_at = now(), completed_at = 'infinity' WHERE agent_id = 'unending';
         INSERT INTO agent_checkpoints (id, task_id, agent_id, checkpoint_type, status, created_at)
         SELECT id::uuid, '80000000-0000-4000-8000-000000000001', 'bot', 'progress', 'working', 'infinity'
         FROM (VALUES ('80000000-0000-4000-8000-000000000003'), ('018bcfe5-6800-7000-8000-000000000001')) AS v (id);
         INSERT INTO task_artifacts (id, task_id, agent_id, artifact_name, created_at)
         VALUES ('80000000-0000-4000-8000-000000000004', '80000000-0000-4000-8000-000000000001', 'bot', 'x', 'infinity');
         INSERT INTO human_interventions (id, task_id, agent_id, intervention_type, user_id, created_at)
         VALUES ('80000000-0000-4000-8000-000000000005', '80000000-0000-4000-8000-000000000001', 'bot', 'cancel', 'U1',
                 '-infinity')",
    );
    let shown = fleet(&["show", "bot", "--json"]).json();
    let time_of = |list: &str| shown[list][0]["created_at"].clone();
    assert_eq!((&shown["started_at"], &shown["updated_at"]), (&Value::Null, &Value::Null));
    assert_eq!([time_of("artifacts"), time_of("interventions")], [Value::Null, Value::Null]);
    let mut times: Vec<&str> = shown["checkpoints"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|checkpoint| checkpoint["created_at"].as_str().unwrap_or("none"))
        .collect();
    times.sort_unstable();
    assert_eq!(times, ["2023-11-14T22:13:20.000Z", "none"]);
    let page = fleet(&["show", "bot"]).lacks("1970").lacks("9999").lacks("started ");
    page.stdout_has("cancel    asked for by U1\n");
    let shown = fleet(&["show", "tool", "--json"]).json();
    for field in ["started_at", "updated_at"] {
        assert_eq!(shown[field], "2026-03-01T09:30:00.000Z", "{field}");
    }
    fleet(&["tasks"]).lacks("1970").stdout_has("bot");
    let days = fleet(&["metrics", "--days", "2", "--json"]).json();
    let total: u64 = days.as_array().expect("days").iter().filter_map(|day| day["total"].as_u64()).sum();
    assert_eq!(total, 1, "{days}");
}

#[test]
fn a_value_of_any_size_is_cut_for_people_and_whole_in_json() {
    let (cluster, database, url) = prepared();
    cluster.sql_in(
        &database,
        "INSERT INTO agent_tasks (id, agent_id, task_type, task_name, repo_scope, status, error_message, metadata)
         VALUES ('80000000-0000-4000-8000-000000000001', 'bot', 'other', 'Theirs', 'theirs', 'running',
                 repeat('e', 1000000), json_build_object('agent_checkpoint', json_build_object('whole',
                 json_build_object('task_type', repeat('t', 1000000))))::jsonb);
         INSERT INTO agent_checkpoints (id, task_id, agent_id, checkpoint_type, status, action_description, error_message,
                 metadata)
         VALUES ('80000000-0000-4000-8000-000000000003', '80000000-0000-4000-8000-000000000001', 'bot', 'progress',
                 'working', repeat('a', 1000000), repeat('b', 1000000), json_build_object('agent_checkpoint',
                 json_build_object('tail', repeat('l', 1000000)))::jsonb);
         INSERT INTO task_artifacts (id, task_id, agent_id, artifact_url, metadata)
         VALUES ('80000000-0000-4000-8000-000000000004', '80000000-0000-4000-8000-000000000001', 'bot',
                 'https://ci.example/' || repeat('u', 1000000), json_build_object('agent_checkpoint', json_build_object(
                 'checkpoint_id', '80000000-0000-4000-8000-000000000003'))::jsonb);
         INSERT INTO human_interventions (id, task_id, agent_id, intervention_type, action_details)
         VALUES ('80000000-0000-4000-8000-000000000005', '80000000-0000-4000-8000-000000000001', 'bot', 'cancel',
                 json_build_object('user_name', repeat('n', 1000000)))",
    );
    let show = |args: &[&str]| {
        Sandbox::new().cmd([args, &["--fleet"]].concat()).env("DATABASE_URL", &url).run().success()
    };
    let page = show(&["show", "bot"]);
    let longest = page.stdout.lines().map(|line| line.chars().count()).max();
    assert!(longest.is_some_and(|longest| longest < LINE_MAX), "{longest:?}");
    assert!(page.stdout.contains("aaa… (+998,000 characters)"), "{:.3000}", page.stdout);
    for letter in ["t", "b", "l", "u", "n"] {
        assert!(page.stdout.contains(&letter.repeat(1000)), "{letter}");
    }
    let whole = show(&["show", "bot", "--json"]).json();
    assert_eq!(whole["checkpoints"][0]["action"].as_str().map(str::len), Some(1_000_000));
}
