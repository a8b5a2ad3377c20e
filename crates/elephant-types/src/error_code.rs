//! A closed set of reasons for failure, so that every crate's errors map to HTTP in one place.

/// Why an operation failed, seen from the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The request itself is wrong: a value out of range, a malformed file, a name that leaves its root.
    InvalidArgument,
    /// The dataset, model or file does not exist.
    NotFound,
    /// The request is fine but cannot run now, because something else holds what it needs.
    Conflict,
    /// The request is fine but larger than this server accepts.
    TooLarge,
    /// The caller, or another one, cancelled the operation.
    Cancelled,
    /// No space is left on the device.
    StorageFull,
    /// Too many such requests are waiting; it may be asked again later.
    TooMany,
    /// Something this server depends on (a network host, a broker) cannot be reached.
    Unavailable,
    /// A defect of this server.
    Internal,
}

/// Errors that know their [`ErrorCode`].
pub trait Coded: std::error::Error {
    /// The reason for this failure, seen from the caller.
    fn code(&self) -> ErrorCode;

    /// The failure in at most some 60 characters, for places with one line; names from outside come last, after a colon.
    /// `None` where the message is short, or its first clause says enough.
    fn brief(&self) -> Option<String> {
        None
    }

    /// Seconds after which it may be worth trying again, where that is known.
    fn retry_after(&self) -> Option<u32> {
        None
    }
}

impl Coded for std::io::Error {
    fn code(&self) -> ErrorCode {
        match self.kind() {
            std::io::ErrorKind::NotFound => ErrorCode::NotFound,
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorCode::StorageFull,
            std::io::ErrorKind::FileTooLarge => ErrorCode::TooLarge,
            // A name that is too long, or that goes through a file as if it were a folder.
            std::io::ErrorKind::InvalidFilename
            | std::io::ErrorKind::NotADirectory
            | std::io::ErrorKind::IsADirectory
            | std::io::ErrorKind::AlreadyExists => ErrorCode::InvalidArgument,
            _ => ErrorCode::Internal,
        }
    }
}
