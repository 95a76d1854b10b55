//! Log events through the `tracing` facade; nothing at all without the feature.

macro_rules! log_event {
    ($level:ident, $($rest:tt)*) => {{
        #[cfg(feature = "tracing")]
        tracing::$level!(target: "resilient_sse", $($rest)*);
        #[cfg(not(feature = "tracing"))]
        $crate::telemetry::log::log_nothing!($($rest)*);
    }};
}

/// Marks the values of a log event as used.
#[cfg_attr(feature = "tracing", allow(unused_macros, reason = "serves builds without the feature"))]
macro_rules! log_nothing {
    ($name:ident = % $value:expr, $($rest:tt)*) => { let _ = &$value; $crate::telemetry::log::log_nothing!($($rest)*) };
    ($name:ident = $value:expr, $($rest:tt)*) => { let _ = &$value; $crate::telemetry::log::log_nothing!($($rest)*) };
    ($name:ident, $($rest:tt)*) => { let _ = &$name; $crate::telemetry::log::log_nothing!($($rest)*) };
    ($message:literal) => {};
}

macro_rules! log_debug { ($($rest:tt)*) => { $crate::telemetry::log::log_event!(debug, $($rest)*) }; }
macro_rules! log_warn { ($($rest:tt)*) => { $crate::telemetry::log::log_event!(warn, $($rest)*) }; }
macro_rules! log_error { ($($rest:tt)*) => { $crate::telemetry::log::log_event!(error, $($rest)*) }; }

#[allow(unused_imports, reason = "`log_nothing` serves builds without the feature")]
pub(crate) use {log_debug, log_error, log_event, log_nothing, log_warn};
