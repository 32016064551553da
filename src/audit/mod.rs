//! The audit trail in PostgreSQL: how it is reached. May lag, never blocks.

pub(crate) mod connect;
mod tls;
mod trouble;

pub(crate) use trouble::Trouble;
