//! The address of a database's control socket, and the socket bound there.
//!
//! The socket is a file beside the database, `DATABASE.control`. That path may be too long for a socket's address, or
//! the file system may support no sockets. Then it is an abstract socket named by the device and inode of the database.
//! Server and client both use the database's real path, so a symbolic link to a database leads to the same socket.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};

use crate::limits::CONTROL_BACKLOG;

/// The suffix that is added to the database's name.
const SUFFIX: &str = ".control";
/// Only the owner may connect, and root.
const MODE: u32 = 0o600;

/// The possible addresses of a database's control socket.
#[derive(Debug)]
pub struct Addresses {
    /// The socket file, if its path fits into an address.
    pub file: Option<(PathBuf, SocketAddrUnix)>,
    pub abstract_socket: SocketAddrUnix,
    /// The user id of the owner of the database.
    pub owner: u32,
}

impl Addresses {
    /// The addresses for a database that exists.
    ///
    /// # Errors
    /// If the database does not exist or can't be looked up.
    pub fn of(database: &Path) -> io::Result<Self> {
        let path = fs::canonicalize(database)?;
        let database = fs::metadata(&path)?;
        let abstract_socket = format!("adda{SUFFIX}-{:x}-{:x}", database.dev(), database.ino());
        let mut path = path.into_os_string();
        path.push(SUFFIX);
        let path = PathBuf::from(path);
        let file = SocketAddrUnix::new(&path).ok().map(|address| (path, address));
        let abstract_socket = SocketAddrUnix::new_abstract_name(abstract_socket.as_bytes())?;
        Ok(Self { file, abstract_socket, owner: database.uid() })
    }
}

/// A listening control socket. Its file is removed when it is dropped.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) listener: Arc<UnixListener>,
    _file: Option<SocketFile>,
}

/// The socket file with its device and inode, so that no other file at that path is removed.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Bound {
    /// Binds the control socket of a database. The caller holds the lock of the database, so an existing socket file is
    /// stale.
    pub(super) fn bind(database: &Path) -> io::Result<Self> {
        let addresses = Addresses::of(database)?;
        if let Some((path, address)) = &addresses.file {
            match Self::bind_file(path, address) {
                Ok(bound) => return Ok(bound),
                Err(error) => log::info!(
                    "failed to create the control socket `{}`, using an abstract socket: {error}",
                    path.display()
                ),
            }
        }
        let socket = new_socket()?;
        bind(&socket, &addresses.abstract_socket)?;
        listen(&socket, CONTROL_BACKLOG)?;
        Ok(Self { listener: Arc::new(socket.into()), _file: None })
    }

    fn bind_file(path: &Path, address: &SocketAddrUnix) -> io::Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(file) if file.file_type().is_socket() => fs::remove_file(path)?,
            Ok(_) => return Err(io::Error::new(ErrorKind::AlreadyExists, "a file with this name exists")),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // When the socket is bound, the file gets the socket's mode without the bits of the umask (unix_bind_bsd in
        // Linux). So there is no moment at which another user could connect.
        let socket = File::from(new_socket()?);
        socket.set_permissions(Permissions::from_mode(MODE))?;
        bind(&socket, address)?;
        // The umask may have taken bits from the owner.
        fs::set_permissions(path, Permissions::from_mode(MODE))?;
        let made = fs::symlink_metadata(path)?;
        let file = Some(SocketFile { path: path.to_owned(), identity: (made.dev(), made.ino()) });
        listen(&socket, CONTROL_BACKLOG)?;
        Ok(Self { listener: Arc::new(OwnedFd::from(socket).into()), _file: file })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            log::warn!("failed to remove `{}`: {error}", self.path.display());
        }
    }
}

fn new_socket() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}
