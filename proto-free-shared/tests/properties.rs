//! What holds for every value and for every input: round trips, no panics, no dependence on chunks or order.

#[path = "properties/arbitrary.rs"]
mod arbitrary;

use std::fmt::Debug;

use arbitrary::{from_agent, from_host, hex, key, text, uid};
use k3k_expose_proto::limits::{LINE_BYTES, LINE_DEPTH};
use k3k_expose_proto::line::{LineError, Lines, decode, encode};
use k3k_expose_proto::message::{FromAgent, FromHost, Message};
use k3k_expose_proto::{Hash, Key, Tally, Uid};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a line gives, or the error that ended the stream.
type Read = Result<Vec<Vec<u8>>, (Vec<Vec<u8>>, LineError)>;

/// A line, told so that a failure prints short.
#[derive(Clone, Debug)]
enum Shape {
    Bytes(Vec<u8>),
    Long(usize),
}

/// One change to a line.
#[derive(Clone, Debug)]
enum Mutation {
    Overwrite(Index, u8),
    Remove(Index),
    Insert(Index, &'static str),
    Repeat(Index, Index),
    Truncate(Index),
}

/// Pieces that parsers trip over.
const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    "\\",
    ",",
    ":",
    "\n",
    "\r",
    "null",
    "true",
    "-0",
    "0",
    "65536",
    "1e999",
    "-1",
    "1.5",
    "\\u0000",
    "\\ud800",
    "\u{feff}",
    "{}",
    "[]",
    "\"\"",
    "\"key\":",
    "\"put\":",
    "\"zap\":1,",
];

proptest! {
    #[test]
    fn what_an_agent_says_arrives_as_it_was_said(message in from_agent()) {
        arrives(&message)?;
    }

    #[test]
    fn what_host_api_says_arrives_as_it_was_said(message in from_host()) {
        arrives(&message)?;
    }

    #[test]
    fn messages_arrive_whatever_the_chunks(messages in vec(from_agent(), 1..5), cuts in vec(any::<Index>(), 0..8)) {
        let stream = messages.iter().map(|message| encode(message).unwrap()).collect::<Vec<_>>().concat();
        let lines = read(&cut(&stream, &cuts)).unwrap();
        let heard = lines.iter().map(|line| decode(line).unwrap()).collect::<Vec<FromAgent>>();
        prop_assert_eq!(heard, messages);
    }

    #[test]
    fn lines_do_not_depend_on_the_chunks(shapes in vec(shape(), 0..6), cuts in vec(any::<Index>(), 0..40)) {
        let stream = stream_of(&shapes);
        prop_assert!(read(&cut(&stream, &cuts)) == split(&stream));
    }

    #[test]
    fn any_bytes_are_judged_without_panic(bytes in vec(any::<u8>(), 0..300)) {
        is_judged(&bytes)?;
    }

    #[test]
    fn any_pieces_of_json_are_judged_without_panic(pieces in vec(select(PIECES), 0..40)) {
        is_judged(pieces.concat().as_bytes())?;
    }

    #[test]
    fn a_mutated_line_is_judged_without_panic(
        line in prop_oneof![
            from_agent().prop_map(|message| encode(&message).unwrap()),
            from_host().prop_map(|message| encode(&message).unwrap()),
        ],
        mutations in vec(mutation(), 1..4),
    ) {
        is_judged(&mutations.iter().fold(line, mutate))?;
    }

    #[test]
    fn brackets_are_judged_without_panic_at_any_depth(
        unit in select(&["[", "{\"put\":", "{\"\":", "[{\"x\":", "{", "[["][..]),
        opened in 1..LINE_BYTES + 2,
        closed in any::<bool>(),
    ) {
        let mut line = unit.repeat(opened);
        if closed {
            line.push('0');
            line.extend(unit.repeat(opened).chars().rev().filter_map(closing));
        }
        is_judged(line.as_bytes())?;
        let depth = opened * unit.matches(['[', '{']).count();
        let verdict = decode::<FromAgent>(line.as_bytes());
        prop_assert_eq!(verdict == Err(LineError::TooLong), line.len() > LINE_BYTES);
        prop_assert_eq!(verdict == Err(LineError::TooDeep), line.len() <= LINE_BYTES && depth > LINE_DEPTH);
    }

    #[test]
    fn depth_counts_brackets_outside_of_strings_only(leaf in text(), levels in vec(option_of_key(), 0..LINE_DEPTH * 2)) {
        let value = levels.iter().fold(serde_json::Value::from(leaf), |value, level| match level {
            Some(key) => serde_json::json!({ key: value }),
            None => serde_json::json!([value]),
        });
        let verdict = decode::<FromAgent>(value.to_string().as_bytes());
        prop_assert_eq!(verdict == Err(LineError::TooDeep), levels.len() > LINE_DEPTH);
    }

    #[test]
    fn a_tally_does_not_depend_on_order(
        (members, shuffled) in vec(member(), 0..8).prop_flat_map(|members| (Just(members.clone()), Just(members).prop_shuffle())),
        passing in vec(member(), 0..8),
    ) {
        let mut expected = Tally::default();
        for (key, uid, hash) in &members {
            expected.add(key, uid, *hash);
        }
        let mut tally = Tally::default();
        for (key, uid, hash) in passing.iter().chain(&shuffled) {
            tally.add(key, uid, *hash);
        }
        for (key, uid, hash) in passing.iter().rev() {
            tally.remove(key, uid, *hash);
        }
        prop_assert_eq!(tally, expected);
        prop_assert_eq!(tally.count, members.len() as u64);
    }
}

/// A message survives the wire; its line ends at its only newline.
fn arrives<M>(message: &M) -> Result<(), TestCaseError>
where
    M: Message + Serialize + DeserializeOwned + PartialEq + Debug,
{
    let line = encode(message).map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert_eq!(line.iter().position(|&byte| byte == b'\n'), Some(line.len() - 1));
    let heard = decode::<M>(&line[..line.len() - 1]);
    prop_assert_eq!(heard.as_ref(), Ok(message));
    Ok(())
}

/// Either side gives a message, which then survives the wire, or an error in words of our own.
fn is_judged(line: &[u8]) -> Result<(), TestCaseError> {
    match decode::<FromAgent>(line) {
        Ok(message) => arrives(&message)?,
        Err(error) => is_in_our_words(&error)?,
    }
    match decode::<FromHost>(line) {
        Ok(message) => arrives(&message)?,
        Err(error) => is_in_our_words(&error)?,
    }
    Ok(())
}

fn is_in_our_words(error: &LineError) -> Result<(), TestCaseError> {
    const WORDS: &[&str] = &[
        "line longer than # bytes",
        "line is not utf-8",
        "line nested deeper than #",
        "unknown message",
        "unexpected field or value at column #",
        "unfinished json at column #",
        "invalid json at column #",
        "agent must be a version of at most # printable characters",
        "ingressClasses has too many names, or one that is none",
        "object is of another kind than its key",
    ];
    let text = error.to_string();
    let words = text.split(' ').map(|word| word.parse::<usize>().map_or(word, |_| "#")).collect::<Vec<_>>().join(" ");
    prop_assert!(WORDS.contains(&words.as_str()), "{}", text);
    Ok(())
}

/// Feeds the chunks to a reader, reading on after an error to see that it stays one.
fn read(chunks: &[&[u8]]) -> Read {
    let mut reader = Lines::default();
    let (mut lines, mut failure) = (Vec::new(), None);
    for chunk in chunks {
        let mut rest = *chunk;
        loop {
            match reader.next(&mut rest) {
                Ok(Some(line)) => lines.push(line.to_vec()),
                Ok(None) => break,
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
    }
    failure.map_or(Ok(lines.clone()), |error| Err((lines, error)))
}

/// What [`read`] must give, said in another way.
fn split(stream: &[u8]) -> Read {
    let mut lines = stream.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let long = lines.iter().position(|line| line.len() > LINE_BYTES);
    // What follows the last newline is no line yet.
    lines.truncate(long.unwrap_or(lines.len() - 1));
    match long {
        Some(_) => Err((lines, LineError::TooLong)),
        None => Ok(lines),
    }
}

fn cut<'a>(stream: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut places = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect::<Vec<_>>();
    places.extend([0, stream.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect()
}

/// A short line, or one about as long as the bound.
fn shape() -> impl Strategy<Value = Shape> {
    let short = vec(any::<u8>(), 0..9).prop_map(|mut bytes| {
        bytes.retain(|&byte| byte != b'\n');
        Shape::Bytes(bytes)
    });
    prop_oneof![4 => short, 1 => (LINE_BYTES - 2..LINE_BYTES + 3).prop_map(Shape::Long)]
}

/// The last line has no newline yet, unless it is empty.
fn stream_of(shapes: &[Shape]) -> Vec<u8> {
    let line = |shape: &Shape| match shape {
        Shape::Bytes(bytes) => bytes.clone(),
        Shape::Long(length) => vec![b'x'; *length],
    };
    shapes.iter().map(line).collect::<Vec<_>>().join(&b'\n')
}

fn member() -> impl Strategy<Value = (Key, Uid, Hash)> {
    (key(), uid(), hex())
}

/// A level of nesting: an object with that key, or an array.
fn option_of_key() -> impl Strategy<Value = Option<String>> {
    proptest::option::of(prop_oneof![text(), Just("[{\"\\".to_owned())])
}

fn closing(bracket: char) -> Option<char> {
    match bracket {
        '[' => Some(']'),
        '{' => Some('}'),
        _ => None,
    }
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(place, byte)| Mutation::Overwrite(place, byte)),
        any::<Index>().prop_map(Mutation::Remove),
        (any::<Index>(), select(PIECES)).prop_map(|(place, piece)| Mutation::Insert(place, piece)),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Mutation::Repeat(from, to)),
        any::<Index>().prop_map(Mutation::Truncate),
    ]
}

fn mutate(mut line: Vec<u8>, mutation: &Mutation) -> Vec<u8> {
    let place = |index: &Index| index.index(line.len() + 1);
    match mutation {
        Mutation::Overwrite(at, byte) => {
            let at = place(at);
            if let Some(old) = line.get_mut(at) {
                *old = *byte;
            }
        }
        Mutation::Remove(at) => {
            let at = place(at);
            line = [&line[..at], line.get(at + 1..).unwrap_or_default()].concat();
        }
        Mutation::Insert(at, piece) => {
            let at = place(at);
            line = [&line[..at], piece.as_bytes(), &line[at..]].concat();
        }
        Mutation::Repeat(from, to) => {
            let (from, to) = (place(from), place(to));
            let (from, to) = (from.min(to), from.max(to));
            line = [&line[..to], &line[from..]].concat();
        }
        Mutation::Truncate(at) => {
            let at = place(at);
            line.truncate(at);
        }
    }
    line
}
