//! The response headers that are kept with a stream.

/// The response headers that are kept with a stream, see
/// [`ResilientSseLayer::keep_headers`](crate::ResilientSseLayer::keep_headers).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KeptHeaders {
    /// The stream's route keeps no headers.
    #[default]
    None,
    /// The producer has not sent its response head yet.
    Awaited,
    /// Names and values, up to 4 KiB. A name may appear more than once.
    Kept(Vec<(String, String)>),
}

impl KeptHeaders {
    /// Writes the headers as text for a store, one header a line. Header names and values cannot hold a line end.
    #[cfg(feature = "redis")]
    pub(crate) fn to_text(&self) -> String {
        match self {
            Self::None => String::new(),
            Self::Awaited => "?".to_owned(),
            Self::Kept(headers) => {
                headers.iter().fold("=".to_owned(), |text, (name, value)| text + name + ":" + value + "\n")
            }
        }
    }

    /// Reads headers from a store's text. Any other text gives [`None`](Self::None).
    #[cfg(feature = "redis")]
    pub(crate) fn parse(text: &str) -> Self {
        let pair = |line: &str| line.split_once(':').map(|(name, value)| (name.to_owned(), value.to_owned()));
        match text.strip_prefix('=') {
            Some(lines) => Self::Kept(lines.split('\n').filter_map(pair).collect()),
            None if text == "?" => Self::Awaited,
            None => Self::None,
        }
    }
}

#[cfg(all(test, feature = "redis"))]
mod tests {
    use super::*;

    #[test]
    fn kept_headers_are_read_back() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let two = vec![pair("location", "/a:b"), pair("x-empty", ""), pair("location", "=?")];
        for headers in [KeptHeaders::None, KeptHeaders::Awaited, KeptHeaders::Kept(Vec::new()), KeptHeaders::Kept(two)]
        {
            assert_eq!(KeptHeaders::parse(&headers.to_text()), headers);
        }
    }
}
