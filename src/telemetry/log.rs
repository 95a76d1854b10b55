//! Log events through the `tracing` facade. Without the feature, only what needs a human, on standard error.

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

/// Reports something that needs a human. The caller limits it to once a minute.
macro_rules! log_alert {
    ($($field:ident = $value:expr,)* $message:literal) => {{
        $crate::telemetry::log::log_error!($($field = $value,)* $message);
        $crate::telemetry::to_stderr(format_args!(concat!($message, $("; ", stringify!($field), ": {}",)*), $($value,)*));
    }};
}

/// Writes a line on standard error, unless the host listens through `tracing`.
pub(crate) fn to_stderr(line: std::fmt::Arguments<'_>) {
    if cfg!(not(feature = "tracing")) {
        // A process whose standard error is closed has nobody to tell.
        let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("resilient_sse: {line}\n"));
    }
}

#[allow(unused_imports, reason = "`log_nothing` serves builds without the feature")]
pub(crate) use {log_alert, log_debug, log_error, log_event, log_nothing, log_warn};
