//! How an input is cut into chunks: its first eight bytes say the chunks' lengths, over and over.

pub(crate) fn split(input: &[u8]) -> Option<(&[u8], Vec<&[u8]>)> {
    let (lens, stream) = input.split_first_chunk::<8>()?;
    let mut rest = stream;
    let mut chunks = Vec::new();
    for &len in lens.iter().cycle().take(stream.len()) {
        let (chunk, tail) = rest.split_at(usize::from(len).min(rest.len()));
        chunks.push(chunk);
        rest = tail;
    }
    chunks.push(rest);
    Some((stream, chunks))
}
