//! Why a hub refuses: the error codes of Azure IoT Hub's page "Troubleshoot error codes".
//!
//! One [`Refusal`] serves every protocol; how it looks on the wire is for the front ends.

use super::store::StoreError;
use crate::domain::ids::InvalidId;
use crate::domain::twin_limits::InvalidTwin;

/// An error code of the IoT Hub service API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    GenericBadRequest,
    InvalidProtocolVersion,
    InvalidOperation,
    ArgumentInvalid,
    ArgumentNull,
    DeviceDefinedMultipleTimes,
    DeserializationError,
    BulkRegistryOperationFailure,
    EtagDoesNotMatch,
    InvalidDeviceScope,
    IotHubUnauthorizedAccess,
    IotHubUnauthorized,
    DeviceMaximumQueueDepthExceeded,
    DeviceDisabled,
    GenericNotFound,
    DeviceNotFound,
    ModuleNotFound,
    DeviceNotOnline,
    DeviceConnectionClosedRemotely,
    GenericMethodNotAllowed,
    GenericConflict,
    DeviceAlreadyExists,
    ModuleAlreadyExistsOnDevice,
    PreconditionFailed,
    DeviceMessageLockLost,
    MessageTooLarge,
    TooManyDevices,
    TooManyModulesOnDevice,
    ThrottlingException,
    ServerError,
    GenericTimeout,
    ServiceUnavailable,
    GatewayTimeout,
}

impl ErrorCode {
    /// Number and name, as they appear in bodies and in the header `iothub-errorcode`.
    const fn entry(self) -> (u32, &'static str) {
        match self {
            Self::GenericBadRequest => (400_000, "GenericBadRequest"),
            Self::InvalidProtocolVersion => (400_001, "InvalidProtocolVersion"),
            Self::InvalidOperation => (400_003, "InvalidOperation"),
            Self::ArgumentInvalid => (400_004, "ArgumentInvalid"),
            Self::ArgumentNull => (400_005, "ArgumentNull"),
            Self::DeviceDefinedMultipleTimes => (400_011, "DeviceDefinedMultipleTimes"),
            Self::DeserializationError => (400_012, "DeserializationError"),
            Self::BulkRegistryOperationFailure => (400_013, "BulkRegistryOperationFailure"),
            Self::EtagDoesNotMatch => (400_023, "EtagDoesNotMatch"),
            Self::InvalidDeviceScope => (400_028, "InvalidDeviceScope"),
            Self::IotHubUnauthorizedAccess => (401_002, "IotHubUnauthorizedAccess"),
            Self::IotHubUnauthorized => (401_003, "IotHubUnauthorized"),
            Self::DeviceMaximumQueueDepthExceeded => (403_004, "DeviceMaximumQueueDepthExceeded"),
            Self::DeviceDisabled => (403_012, "DeviceDisabled"),
            Self::GenericNotFound => (404_000, "GenericNotFound"),
            Self::DeviceNotFound => (404_001, "DeviceNotFound"),
            Self::ModuleNotFound => (404_010, "ModuleNotFound"),
            Self::DeviceNotOnline => (404_103, "DeviceNotOnline"),
            Self::DeviceConnectionClosedRemotely => (404_104, "DeviceConnectionClosedRemotely"),
            Self::GenericMethodNotAllowed => (405_000, "GenericMethodNotAllowed"),
            Self::GenericConflict => (409_000, "GenericConflict"),
            Self::DeviceAlreadyExists => (409_001, "DeviceAlreadyExists"),
            Self::ModuleAlreadyExistsOnDevice => (409_301, "ModuleAlreadyExistsOnDevice"),
            Self::PreconditionFailed => (412_001, "PreconditionFailed"),
            Self::DeviceMessageLockLost => (412_002, "DeviceMessageLockLost"),
            Self::MessageTooLarge => (413_001, "MessageTooLarge"),
            Self::TooManyDevices => (413_002, "TooManyDevices"),
            Self::TooManyModulesOnDevice => (413_003, "TooManyModulesOnDevice"),
            Self::ThrottlingException => (429_001, "ThrottlingException"),
            Self::ServerError => (500_001, "ServerError"),
            Self::GenericTimeout => (500_008, "GenericTimeout"),
            Self::ServiceUnavailable => (503_001, "ServiceUnavailable"),
            Self::GatewayTimeout => (504_101, "GatewayTimeout"),
        }
    }

    pub const fn number(self) -> u32 {
        self.entry().0
    }

    pub const fn name(self) -> &'static str {
        self.entry().1
    }

    /// The HTTP status that goes with the code.
    pub fn status(self) -> http::StatusCode {
        u16::try_from(self.number() / 1000)
            .ok()
            .and_then(|status| http::StatusCode::from_u16(status).ok())
            .unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR)
    }
}

/// A request refused: the code for programs, the message for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.name())]
pub struct Refusal {
    pub code: ErrorCode,
    pub message: String,
}

impl Refusal {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::ArgumentInvalid, message)
    }

    pub fn not_found(device_id: impl std::fmt::Display) -> Self {
        let message = format!("device '{device_id}' is not registered at this hub");
        Self::new(ErrorCode::DeviceNotFound, message)
    }

    pub fn module_not_found(module: impl std::fmt::Display) -> Self {
        let message = format!("module '{module}' is not registered at this hub");
        Self::new(ErrorCode::ModuleNotFound, message)
    }
}

impl From<InvalidId> for Refusal {
    fn from(why: InvalidId) -> Self {
        Self::invalid(why.to_string())
    }
}

impl From<InvalidTwin> for Refusal {
    fn from(why: InvalidTwin) -> Self {
        Self::invalid(why.0)
    }
}

impl From<StoreError> for Refusal {
    /// The caller cannot know whether a write arrived, as after a timeout: it may retry.
    fn from(why: StoreError) -> Self {
        Self::new(ErrorCode::ServiceUnavailable, why.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_http_status_is_the_first_three_digits_of_the_number() {
        for (code, status) in [
            (ErrorCode::ArgumentInvalid, 400),
            (ErrorCode::IotHubUnauthorized, 401),
            (ErrorCode::DeviceDisabled, 403),
            (ErrorCode::DeviceNotFound, 404),
            (ErrorCode::GenericConflict, 409),
            (ErrorCode::PreconditionFailed, 412),
            (ErrorCode::TooManyDevices, 413),
            (ErrorCode::ServiceUnavailable, 503),
        ] {
            assert_eq!(code.status().as_u16(), status, "{}", code.name());
        }
    }
}
