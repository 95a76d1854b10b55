//! The texts, cut into tokens.

use std::sync::LazyLock;

/// A text that ships with the example.
pub(crate) struct Text {
    name: &'static str,
    content: &'static str,
    tokens: LazyLock<Vec<&'static str>>,
}

macro_rules! text {
    ($name:literal) => {{
        const CONTENT: &str = include_str!(concat!("../texts/", $name));
        Text { name: $name, content: CONTENT, tokens: LazyLock::new(|| tokens(CONTENT)) }
    }};
}

static TEXTS: [Text; 3] = [text!("opticks.txt"), text!("cicero.txt"), text!("gettysburg.txt")];

impl Text {
    /// Returns the text for a request that names none.
    pub(crate) fn default_one() -> &'static Self {
        &TEXTS[0]
    }

    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        TEXTS.iter().find(|text| text.name == name)
    }

    /// Returns the names of all texts, separated by commas.
    pub(crate) fn names() -> String {
        TEXTS.each_ref().map(|text| text.name).join(", ")
    }

    /// Returns the number of tokens in the text.
    pub(crate) fn len(&self) -> u64 {
        self.tokens.len() as u64
    }

    /// Returns the token with this number. After the last token the text begins again.
    pub(crate) fn token(&self, number: u64) -> &'static str {
        let index = number % self.len().max(1);
        self.tokens.get(usize::try_from(index).unwrap_or(0)).copied().unwrap_or(self.content)
    }
}

/// Cuts a text into words, each with the whitespace before it, like the tokens of a language model. Joined together
/// they are the text again.
fn tokens(text: &'static str) -> Vec<&'static str> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let word = rest.find(|c: char| !c.is_whitespace()).unwrap_or(rest.len());
        let end = rest[word..].find(char::is_whitespace).map_or(rest.len(), |length| word + length);
        let (token, tail) = rest.split_at(end);
        tokens.push(token);
        rest = tail;
    }
    tokens
}
