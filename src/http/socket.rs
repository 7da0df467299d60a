//! The private Unix socket on which `tiny_http` listens, in a directory that other users can't read. It must not be
//! reachable by other users.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use uuid::Uuid;

use super::server::StartError;

/// The prefix of the private directories' names.
pub(super) const DIRECTORY_PREFIX: &str = "adda-http-";
/// The name of the socket in a private directory.
pub(super) const SOCKET_NAME: &str = "http";

/// One run of `tiny_http`. The fields are dropped in this order: `tiny_http` needs its socket while it ends.
pub(super) struct Listening {
    pub(super) server: tiny_http::Server,
    pub(super) path: PathBuf,
    /// A second handle of the listening socket, to end its accept loop.
    pub(super) listener: UnixListener,
    directory: PrivateDirectory,
}

impl Listening {
    pub(super) fn start() -> Result<Self, StartError> {
        for base in own_directories() {
            if let Ok(listening) = Self::start_in(&base) {
                return Ok(listening);
            }
        }
        let directory = std::env::temp_dir();
        Self::start_in(&directory).map_err(|source| StartError::Socket { directory, source })
    }

    pub(super) fn start_in(base: &Path) -> io::Result<Self> {
        sweep(base);
        let directory = PrivateDirectory::make(base)?;
        let path = directory.0.join(SOCKET_NAME);
        let listener = UnixListener::bind(&path)?;
        let server = tiny_http::Server::from_listener(listener.try_clone()?, None).map_err(io::Error::other)?;
        Ok(Self { server, path, listener, directory })
    }

    /// Removes the socket and its directory, even if a thread still uses it.
    pub(super) fn remove(&self) {
        self.directory.remove();
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // To end its accept loop, `tiny_http` connects to the socket's path. That path may be gone, but a shutdown
        // always works.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
    }
}

/// Directories of this service or user that may hold a private socket, the best first.
fn own_directories() -> impl Iterator<Item = PathBuf> {
    let of_service = std::env::var_os("RUNTIME_DIRECTORY").map(|paths| {
        // It may be several paths, separated by colons (systemd.exec).
        let first = paths.to_string_lossy();
        PathBuf::from(first.split(':').next().unwrap_or_default())
    });
    let of_user = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    of_service.into_iter().chain(of_user).filter(|path| path.is_absolute())
}

/// Removes the directories of killed servers: directories with our prefix whose socket has no listener.
fn sweep(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(DIRECTORY_PREFIX) {
            // The connect must not block, because any user may own the socket. A listener accepts it or is busy, and
            // directories of other users can't be read.
            let connected = rustix::net::SocketAddrUnix::new(entry.path().join(SOCKET_NAME)).and_then(|address| {
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
                rustix::net::connect(&socket, &address)
            });
            if connected == Err(rustix::io::Errno::CONNREFUSED) {
                drop(PrivateDirectory(entry.path()));
            }
        }
    }
}

/// A directory that other users can't read. It is removed on drop.
struct PrivateDirectory(PathBuf);

impl PrivateDirectory {
    fn make(base: &Path) -> io::Result<Self> {
        let path = base.join(format!("{DIRECTORY_PREFIX}{}", Uuid::new_v4().simple()));
        // Fails if the name already exists.
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    fn remove(&self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        self.remove();
    }
}
