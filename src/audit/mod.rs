//! The audit trail in PostgreSQL: how it is reached, and what its tables are. May lag, never blocks.

pub(crate) mod advance;
pub(crate) mod connect;
pub(crate) mod forward;
pub(crate) mod migrate;
pub(crate) mod people;
pub(crate) mod privileges;
mod probe;
pub(crate) mod report;
mod rows;
pub(crate) mod schema;
mod tls;
mod trouble;

pub(crate) use trouble::Trouble;
