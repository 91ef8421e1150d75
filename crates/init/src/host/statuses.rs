//! Failures as gRPC statuses, by which the host distinguishes the kinds. Their texts are short: Nomad shows about 120
//! bytes.

use crate::logs::stream::LogError;
use crate::program::plan::{Failure, FailureKind};
use crate::task::error::{ConfigureError, LifeError};
use tonic::Status;

pub fn status_of(failure: Failure) -> Status {
    match failure.kind {
        FailureKind::NotFound => Status::not_found(failure.message),
        FailureKind::NotExecutable => Status::permission_denied(failure.message),
        FailureKind::Invalid => Status::invalid_argument(failure.message),
        FailureKind::NotRunning => Status::failed_precondition(failure.message),
        FailureKind::Internal => Status::internal(failure.message),
    }
}

pub fn status_of_life(error: LifeError) -> Status {
    let message = error.to_string();
    match error {
        LifeError::State(_) => Status::failed_precondition(message),
        LifeError::Configure(ConfigureError::Invalid(_)) => Status::invalid_argument(message),
        LifeError::Configure(ConfigureError::Step(_)) | LifeError::Peers(_) => {
            Status::internal(message)
        }
        LifeError::Start(failure) => status_of(failure),
    }
}

pub fn status_of_log(error: LogError) -> Status {
    let message = error.to_string();
    match error {
        LogError::NoSuchStream => Status::invalid_argument(message),
        LogError::OutOfRange(_) => Status::out_of_range(message),
        LogError::Replaced => Status::aborted(message),
        LogError::Lost => Status::data_loss(message),
    }
}

/// The bytes are not a message of the contract.
pub fn no_message(error: prost::DecodeError) -> Status {
    Status::invalid_argument(error.to_string())
}
