//! The private Unix socket on which `tiny_http` listens, in a directory that other users can't read. It must not be
//! reachable by other users.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
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
    /// Keeps the path of the socket valid.
    _handle: Option<File>,
}

impl Listening {
    /// Opens a private socket in the first directory that accepts one. `beside` is the directory of the database.
    pub(super) fn start(beside: Option<&Path>) -> Result<Self, StartError> {
        let mut first_error = None;
        for base in directories(beside) {
            match Self::start_in(&base) {
                Ok(listening) => return Ok(listening),
                Err(source) => drop(first_error.get_or_insert(StartError::Socket { directory: base, source })),
            }
        }
        let none = || StartError::Socket { directory: PathBuf::new(), source: io::ErrorKind::NotFound.into() };
        Err(first_error.unwrap_or_else(none))
    }

    pub(super) fn start_in(base: &Path) -> io::Result<Self> {
        sweep(base);
        let directory = PrivateDirectory::make(base)?;
        let (path, handle) = socket_path(&directory.0)?;
        let listener = UnixListener::bind(&path)?;
        let server = tiny_http::Server::from_listener(listener.try_clone()?, None).map_err(io::Error::other)?;
        Ok(Self { server, path, listener, directory, _handle: handle })
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

/// Directories that may hold a private socket, the best first: those of this service or user, those for temporary files,
/// and that of the database, which is writable if the server can start at all.
fn directories(beside: Option<&Path>) -> impl Iterator<Item = PathBuf> {
    let of_service = std::env::var_os("RUNTIME_DIRECTORY").map(|paths| {
        // It may be several paths, separated by colons (systemd.exec).
        let first = paths.to_string_lossy();
        PathBuf::from(first.split(':').next().unwrap_or_default())
    });
    let of_user = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let temporary = [std::env::temp_dir(), "/tmp".into(), "/dev/shm".into()];
    let all = of_service.into_iter().chain(of_user).chain(temporary).chain(beside.map(Path::to_owned));
    all.filter(|path| path.is_absolute())
}

/// Removes the directories of killed servers: directories with our prefix whose socket has no listener.
fn sweep(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(DIRECTORY_PREFIX) {
            // The connect must not block, because any user may own the socket. A listener accepts it or is busy, and
            // directories of other users can't be read.
            let Ok((path, _handle)) = socket_path(&entry.path()) else { continue };
            let connected = SocketAddrUnix::new(path).and_then(|address| {
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

/// The path of the socket in a private directory. A path that is too long for an address is replaced by one through
/// `/proc`, which is valid as long as the handle of the directory is open.
fn socket_path(directory: &Path) -> io::Result<(PathBuf, Option<File>)> {
    let path = directory.join(SOCKET_NAME);
    if SocketAddrUnix::new(&path).is_ok() {
        return Ok((path, None));
    }
    let handle = File::open(directory)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd())).join(SOCKET_NAME);
    Ok((path, Some(handle)))
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
