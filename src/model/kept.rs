//! The headers of a response that are kept with its stream.

/// What is kept of the headers of a stream's response: see
/// [`ResilientSseLayer::keep_headers`](crate::ResilientSseLayer::keep_headers).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KeptHeaders {
    /// The stream's route keeps none.
    #[default]
    None,
    /// The producer has not answered yet.
    Awaited,
    /// These, names and values: up to 4 KiB. A name may stand there more than once.
    Kept(Vec<(String, String)>),
}

impl KeptHeaders {
    /// As it stands in stores: a header a line. Neither a name nor a value holds a line end.
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

    /// Reads it back. A text that is none of these says nothing.
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
