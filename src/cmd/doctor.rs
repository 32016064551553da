//! placeholder
use crate::args::{DoctorArgs, GlobalArgs};
use crate::exit::Exit;
pub(super) fn run(_: &GlobalArgs, _: &DoctorArgs) -> anyhow::Result<Exit> {
    Ok(Exit::Done)
}
