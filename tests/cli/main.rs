//! One integration binary that drives the real program.

mod ask;
#[cfg(feature = "postgres")]
mod ask_elsewhere;
#[cfg(feature = "postgres")]
mod ask_elsewhere_cancel;
#[cfg(feature = "postgres")]
mod ask_elsewhere_reach;
mod ask_people;
mod ask_socket;
#[cfg(feature = "postgres")]
mod audit;
#[cfg(feature = "postgres")]
mod audit_outage;
#[cfg(feature = "postgres")]
mod audit_trouble;
mod bad_input;
mod cache;
mod cancel;
mod card;
#[cfg(feature = "postgres")]
mod cluster;
mod concurrency;
mod courier;
mod crash;
#[cfg(feature = "postgres")]
mod database;
#[cfg(feature = "postgres")]
mod db;
mod doctor;
#[cfg(feature = "postgres")]
mod engines;
#[path = "../fake_slack/mod.rs"]
mod fake_slack;
mod fleet;
#[cfg(feature = "postgres")]
mod fleet_odd;
#[cfg(feature = "postgres")]
mod fleet_reads;
mod flush;
mod generated;
mod guard;
mod handover;
mod help;
mod identity;
mod interval;
#[cfg(feature = "serve")]
mod launch;
#[cfg(feature = "serve")]
mod launch_safety;
mod lifecycle;
mod limits;
mod masking;
mod message;
mod metrics;
mod network;
mod outcomes;
mod people;
#[cfg(feature = "postgres")]
mod privileges;
mod readme;
mod receipt;
mod replies;
mod rights;
mod run;
mod run_child;
mod run_failures;
mod run_live;
#[cfg(target_os = "linux")]
mod run_lost;
mod run_masking;
mod run_nested;
mod run_terminal;
mod scene;
#[cfg(feature = "serve")]
mod serve;
#[cfg(all(feature = "serve", feature = "postgres"))]
mod serve_fleet;
#[cfg(feature = "serve")]
mod serve_slack;
mod settings;
#[cfg(feature = "postgres")]
mod shared;
#[cfg(feature = "postgres")]
mod shared_card;
mod show;
#[cfg(feature = "postgres")]
mod strangers;
mod stream;
mod stream_delivery;
mod stream_safety;
mod support;
mod tasks;
mod thread;
mod unconfirmed;
mod webhook;
mod wire;
mod wrong_settings;
