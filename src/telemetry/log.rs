//! Logging through the `tracing` facade. Without the feature, messages that need a human go to standard error.

macro_rules! log_event {
    ($level:ident, $($rest:tt)*) => {{
        #[cfg(feature = "tracing")]
        tracing::$level!(target: "resilient_sse", $($rest)*);
        #[cfg(not(feature = "tracing"))]
        $crate::telemetry::log::log_nothing!($($rest)*);
    }};
}

/// Marks the values of a log event as used, in builds without the feature `tracing`.
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

/// Reports a problem that needs a human. The caller limits it to once a minute.
macro_rules! log_alert {
    ($($field:ident = $value:expr,)* $message:literal) => {{
        $crate::telemetry::log::log_error!($($field = $value,)* $message);
        $crate::telemetry::to_stderr(format_args!(concat!($message, $("; ", stringify!($field), ": {}",)*), $($value,)*));
    }};
}

/// Writes a line to standard error, in builds without the feature `tracing`.
pub(crate) fn to_stderr(line: std::fmt::Arguments<'_>) {
    if cfg!(not(feature = "tracing")) {
        // If standard error is closed, the line has nowhere to go.
        let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("resilient_sse: {line}\n"));
    }
}

#[allow(unused_imports, reason = "`log_nothing` serves builds without the feature")]
pub(crate) use {log_alert, log_debug, log_error, log_event, log_nothing, log_warn};
