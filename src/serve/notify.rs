//! What a service manager wants to know, as sd_notify(3) tells it: a datagram to a socket.

use std::ffi::OsString;
use std::io;
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Whom to tell, if anybody.
#[derive(Debug, Default)]
pub(crate) struct Notify(Option<SocketAddr>);

impl Notify {
    /// `NOTIFY_SOCKET` as the environment has it: a path, or an abstract address behind an `@`.
    ///
    /// # Errors
    /// It is neither.
    pub(crate) fn to(socket: Option<OsString>) -> io::Result<Self> {
        let Some(socket) = socket.filter(|socket| !socket.is_empty()) else { return Ok(Self(None)) };
        let address = match socket.as_bytes() {
            #[cfg(target_os = "linux")]
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(&socket)?,
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        Ok(Self(Some(address)))
    }

    /// Says it. Nobody listening is no failure of ours.
    pub(super) fn tell(&self, state: &str) {
        if let (Some(address), Ok(socket)) = (&self.0, UnixDatagram::unbound()) {
            let _ = socket.set_nonblocking(true);
            let _ = socket.send_to_addr(state.as_bytes(), address);
        }
    }
}
