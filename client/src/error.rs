//! Questions about API errors, by the reason in their Status.

use kube::Error;

/// The `reason` of the Status that the API server answered, if it answered with one.
pub fn reason(error: &Error) -> Option<&str> {
    match error {
        Error::Api(status) => Some(&status.reason),
        _ => None,
    }
}

/// The HTTP code that the API server answered.
pub fn code(error: &Error) -> Option<u16> {
    match error {
        Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// The object does not exist (any more).
pub fn is_not_found(error: &Error) -> bool {
    reason(error) == Some("NotFound")
}

/// The object was changed since it was read, or a precondition does not hold.
pub fn is_conflict(error: &Error) -> bool {
    reason(error) == Some("Conflict")
}

/// An object of this name exists.
pub fn is_already_exists(error: &Error) -> bool {
    reason(error) == Some("AlreadyExists")
}

/// The watched revision is no longer in the history: list again.
pub fn is_expired(error: &Error) -> bool {
    code(error) == Some(410)
}

/// The server understood the request and refused it for good: the same request will fail again.
pub fn is_permanent(error: &Error) -> bool {
    matches!(code(error), Some(400 | 403 | 405 | 413 | 415 | 422))
}

/// The namespace is being deleted, so nothing can be created in it.
pub fn is_namespace_terminating(error: &Error) -> bool {
    match error {
        Error::Api(status) => status
            .details
            .as_ref()
            .is_some_and(|details| details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating")),
        _ => false,
    }
}
