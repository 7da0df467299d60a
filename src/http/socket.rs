//! The private Unix socket that `tiny_http` listens on, in a directory that nobody else can look into.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use uuid::Uuid;

use super::StartError;

/// What the private directories' names begin with.
pub(super) const DIRECTORY_PREFIX: &str = "adda-http-";
/// The socket in one.
pub(super) const SOCKET_NAME: &str = "http";

/// One run of `tiny_http`. The fields are dropped in this order: it looks for its socket as it goes.
pub(super) struct Listening {
    pub(super) server: tiny_http::Server,
    pub(super) path: PathBuf,
    /// A second handle of the socket that it accepts on, to end that.
    pub(super) listener: UnixListener,
    _directory: PrivateDirectory,
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
        Ok(Self { server, path, listener, _directory: directory })
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // tiny_http ends its accepting by connecting to the socket's path, which may be gone; this always does.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
    }
}

/// Directories of this service or user, where a private socket may be; the best first.
fn own_directories() -> impl Iterator<Item = PathBuf> {
    let of_service = std::env::var_os("RUNTIME_DIRECTORY").map(|paths| {
        // There may be several, with colons between them (systemd.exec).
        let first = paths.to_string_lossy();
        PathBuf::from(first.split(':').next().unwrap_or_default())
    });
    let of_user = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    of_service.into_iter().chain(of_user).filter(|path| path.is_absolute())
}

/// Takes away what killed servers have left: directories like ours whose socket nobody listens to any more.
fn sweep(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(DIRECTORY_PREFIX) {
            // Without waiting, as it may be anybody's: who listens takes it or is busy, and another user's may not be
            // looked into.
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

/// A directory that nobody else can look into, until it is dropped.
struct PrivateDirectory(PathBuf);

impl PrivateDirectory {
    fn make(base: &Path) -> io::Result<Self> {
        let path = base.join(format!("{DIRECTORY_PREFIX}{}", Uuid::new_v4().simple()));
        // Fails where there is anything by that name already.
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
