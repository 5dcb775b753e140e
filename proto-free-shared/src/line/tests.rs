//! What a line may be: its bounds to the byte, what is refused and in which words.

use proptest::prelude::*;

use super::*;
use crate::limits::WANT_KEYS;
use crate::message::{Bye, ByeReason, FromAgent, FromHost, Object, Want};
use crate::service::{Service, ServiceType};
use crate::{Key, Resource};

/// What no error text may repeat.
const SECRET: &str = "XSECRETX";
const ROOT: &str = "00000000000000000000000000000000";

fn heard(line: impl AsRef<[u8]>) -> Result<FromAgent, LineError> {
    decode(line.as_ref())
}

fn beat_with(fields: &str) -> String {
    format!(r#"{{"beat":{{"count":0,"root":"{ROOT}","ready":true{fields}}}}}"#)
}

fn put_with(fields: &str) -> String {
    let service = format!(r#"{{"type":"ClusterIP"{fields}}}"#);
    format!(r#"{{"put":{{"key":"services/a/b","uid":"u","hash":"{ROOT}","object":{{"service":{service}}}}}}}"#)
}

fn is_malformed(line: &str) -> bool {
    matches!(heard(line), Err(LineError::Malformed(_)))
}

#[test]
fn a_line_of_exactly_the_bound_is_read() {
    let mut line = beat_with("");
    line.push_str(&" ".repeat(LINE_BYTES - line.len()));
    assert!(heard(&line).is_ok());
    assert_eq!(heard(line + " "), Err(LineError::TooLong));
}

#[test]
fn a_line_of_exactly_the_bound_is_written() {
    let bye = |length| FromHost::Bye(Bye { reason: ByeReason::Slow, message: "x".repeat(length), retry_after_s: None });
    let spare = LINE_BYTES - r#"{"bye":{"reason":"slow","message":""}}"#.len();
    let line = encode(&bye(spare)).unwrap();
    assert_eq!(line.len(), LINE_BYTES + 1);
    assert_eq!(Lines::default().next(&mut &line[..]), Ok(Some(&line[..LINE_BYTES])));
    assert_eq!(decode(&line[..LINE_BYTES]), Ok(bye(spare)));
    assert_eq!(encode(&bye(spare + 1)), Err(TooLarge));
}

#[test]
fn the_most_wanted_keys_of_the_longest_names_fit() {
    let label = "a".repeat(63);
    let name = ["a"; 127].join(".");
    let keys = vec![Key::of(Resource::Ingresses, &label, &name).unwrap(); WANT_KEYS];
    assert!(encode(&FromHost::Want(Want::Keys(keys))).unwrap().len() <= LINE_BYTES * 4 / 5);
}

#[test]
fn a_line_is_cut_at_its_newline_and_the_rest_left() {
    let mut lines = Lines::default();
    let mut chunk = &b"one\n\ntw"[..];
    assert_eq!(lines.next(&mut chunk), Ok(Some(&b"one"[..])));
    assert_eq!(lines.next(&mut chunk), Ok(Some(&b""[..])));
    assert_eq!(lines.next(&mut chunk), Ok(None));
    assert_eq!(chunk, b"");
    assert_eq!(lines.next(&mut &b"o\n"[..]), Ok(Some(&b"two"[..])));
}

#[test]
fn a_line_of_a_gibibyte_ends_at_the_first_byte_over_the_bound() {
    let mut lines = Lines::default();
    let chunk = vec![b'['; 16 * 1024];
    let chunks = 1024 * 1024 * 1024 / chunk.len();
    let refused = (0..chunks).position(|_| lines.next(&mut &chunk[..]).is_err());
    assert_eq!(refused, Some(LINE_BYTES / chunk.len()));
    assert_eq!(lines.partial.len(), LINE_BYTES);

    let mut lines = Lines::default();
    let refused = (0..1024 * 1024 * 1024).position(|_| lines.next(&mut &b"["[..]).is_err());
    assert_eq!(refused, Some(LINE_BYTES), "the byte after the bound");
}

#[test]
fn after_a_line_too_long_nothing_is_read_any_more() {
    let mut lines = Lines::default();
    assert_eq!(lines.next(&mut &vec![b' '; LINE_BYTES + 1][..]), Err(LineError::TooLong));
    let end = beat_with("") + "\n";
    assert_eq!(lines.next(&mut end.as_bytes()), Err(LineError::TooLong));
}

proptest! {
    /// What is held is seen here and not from outside: a counting allocator would need `unsafe`.
    #[test]
    fn no_chunks_make_it_hold_more_than_a_line(
        chunks in proptest::collection::vec((0..LINE_BYTES + 2, any::<bool>()), 0..12),
    ) {
        let mut lines = Lines::default();
        for (length, ends) in chunks {
            let mut chunk = vec![b'x'; length];
            chunk.extend(ends.then_some(b'\n'));
            let mut rest = &chunk[..];
            while let Ok(Some(line)) = lines.next(&mut rest) {
                prop_assert!(line.len() <= LINE_BYTES);
            }
            prop_assert!(lines.partial.len() <= LINE_BYTES);
            prop_assert!(lines.partial.capacity() <= 2 * LINE_BYTES, "a vector grows by doubling");
        }
    }
}

#[test]
fn nesting_is_refused_beyond_the_bound() {
    // Two levels are the message's own.
    let nested = |levels| beat_with(&format!(r#","x":{}0{}"#, "[".repeat(levels), "]".repeat(levels)));
    assert!(heard(nested(LINE_DEPTH - 2)).is_ok());
    assert_eq!(heard(nested(LINE_DEPTH - 1)), Err(LineError::TooDeep));
    assert_eq!(heard("{\"a\":".repeat(LINE_DEPTH + 1)), Err(LineError::TooDeep));
    assert_eq!(heard("[".repeat(LINE_BYTES)), Err(LineError::TooDeep));
}

#[test]
fn brackets_side_by_side_do_not_add_up() {
    assert!(heard(beat_with(&format!(r#","x":[{}0]"#, "[],{},".repeat(5_000)))).is_ok());
    assert!(is_malformed(&"]".repeat(100)));
}

#[test]
fn brackets_in_strings_do_not_count() {
    let deep = "[{".repeat(LINE_DEPTH);
    assert!(heard(beat_with(&format!(r#","x":"{deep}""#))).is_ok());
    assert!(heard(beat_with(&format!(r#","{deep}":0"#))).is_ok());
    // An escaped quote does not end the string.
    assert!(heard(beat_with(&format!(r#","x":"\"{deep}\"""#))).is_ok());
    // An escaped backslash does not escape the quote after it, so these brackets lie outside.
    let array = format!("{}{}", "[".repeat(LINE_DEPTH), "]".repeat(LINE_DEPTH));
    assert_eq!(heard(beat_with(&format!(r#","x":["\\",{array}]"#))), Err(LineError::TooDeep));
}

#[test]
fn what_is_not_utf8_is_refused() {
    let line = beat_with(r#","x":"?""#).into_bytes();
    for bad in [0x80, 0xc0, 0xed, 0xff] {
        let line = line.iter().map(|&byte| if byte == b'?' { bad } else { byte });
        assert_eq!(heard(line.collect::<Vec<_>>()), Err(LineError::NotUtf8), "{bad:x}");
    }
}

#[test]
fn checks_are_made_in_the_order_of_the_errors() {
    let deep = "[".repeat(LINE_DEPTH + 1).into_bytes();
    let deep_not_utf8 = [&deep[..], &[0xff]].concat();
    let all_of_it = [&deep_not_utf8[..], &[b' '; LINE_BYTES]].concat();
    assert_eq!(heard(all_of_it), Err(LineError::TooLong));
    assert_eq!(heard(deep_not_utf8), Err(LineError::NotUtf8));
    assert_eq!(heard(deep), Err(LineError::TooDeep));
}

#[test]
fn a_field_given_twice_is_refused() {
    assert!(heard(put_with("")).is_ok());
    for twice in [
        beat_with(r#","count":0"#),
        // The same name, spelled with an escape.
        beat_with(r#","c\u006funt":0"#),
        put_with(r#","type":"ClusterIP""#),
        put_with(r#","ports":[],"ports":[]"#),
        put_with(r#","ports":[{"protocol":"TCP","port":1,"targetPort":1,"port":1}]"#),
    ] {
        assert!(is_malformed(&twice), "{twice}");
    }
}

#[test]
fn a_key_given_twice_in_a_map_is_refused() {
    for map in ["selector", "labels", "annotations"] {
        let once = put_with(&format!(r#","{map}":{{"a":"1","b":"1"}}"#));
        assert!(heard(&once).is_ok(), "{once}");
        for entries in [r#""a":"1","a":"2""#, r#""a":"1","b":"1","\u0061":"1""#] {
            let twice = put_with(&format!(r#","{map}":{{{entries}}}"#));
            assert!(is_malformed(&twice), "{twice}");
        }
    }
}

#[test]
fn unknown_fields_are_ignored() {
    assert_eq!(heard(beat_with(r#","new":{"x":[null,1e999]}"#)), heard(beat_with("")));
    let new = r#","externalName":"x","ports":[{"protocol":"TCP","port":1,"targetPort":1,"new":{}}]"#;
    let known = r#","ports":[{"protocol":"TCP","port":1,"targetPort":1}]"#;
    assert_eq!(heard(put_with(new)), heard(put_with(known)));
}

#[test]
fn fields_left_out_have_their_zero_values() {
    let Ok(FromAgent::Put(put)) = heard(put_with("")) else {
        panic!("no put");
    };
    let service = Service::new(ServiceType::ClusterIP);
    assert_eq!((put.seen, put.object), (0, Object::Service(Box::new(service))));
}

#[test]
fn a_bye_for_a_reason_of_a_newer_host_is_taken_as_unknown() {
    let bye = Bye { reason: ByeReason::Unknown, message: String::new(), retry_after_s: None };
    assert_eq!(decode(br#"{"bye":{"reason":"evicted"}}"#), Ok(FromHost::Bye(bye)));
}

#[test]
fn an_unknown_message_is_told_from_a_broken_one() {
    for unknown in [r#"{"zap":{}}"#, r#"{"zap":null}"#, r#"{"":[1]}"#, r#"{"welcome":{}}"#, r#"{"Beat":{}}"#] {
        assert_eq!(heard(unknown), Err(LineError::Unsupported), "{unknown}");
    }
    for broken in [
        "",
        " ",
        "null",
        "{}",
        "[]",
        r#""beat""#,
        r#"{"beat":null}"#,
        r#"{"zap":1"#,
        r#"{"zap":}"#,
        r#"{"zap":1} x"#,
        "\u{feff}{\"zap\":1}",
    ] {
        assert!(is_malformed(broken), "{broken}");
    }
}

#[test]
fn a_line_is_one_message_and_nothing_else() {
    let beat = beat_with("");
    let inner = beat.trim_start_matches('{').trim_end_matches('}');
    for line in [
        format!("{{{inner}}},{inner}}}}}"),
        format!(r#"{{{inner}}},"zap":1}}"#),
        format!(r#"{{"zap":1,{inner}}}}}"#),
        r#"{"zap":1,"zop":1}"#.to_owned(),
        format!("{beat}{beat}"),
        format!("{beat} x"),
        format!("{beat}\0"),
        format!("[{beat}]"),
    ] {
        assert!(is_malformed(&line), "{line}");
    }
    assert!(heard(format!(" \t{beat}\r")).is_ok(), "white space is no garbage");
}

#[test]
fn an_error_says_what_and_where_and_nothing_of_the_line() {
    assert_eq!(heard(r#"{"beat":{"count":"#), Err(LineError::Malformed("unfinished json at column 17".to_owned())));
    let broken = [
        SECRET.to_owned(),
        format!("\"{SECRET}\""),
        format!(r#"{{"{SECRET}":1}}"#),
        format!(r#"{{"{SECRET}":1,"b":2}}"#),
        format!(r#"{{"beat":"{SECRET}"}}"#),
        format!(r#"{{"beat":{{"{SECRET}":1}}}}"#),
        beat_with(&format!(r#","{SECRET}":{SECRET}"#)),
        beat_with("").replace(ROOT, SECRET),
        beat_with("").replace("true", &format!("\"{SECRET}\"")),
        put_with("").replace("ClusterIP", SECRET),
        put_with("").replace("services/a/b", SECRET),
        put_with("").replace(r#""u""#, &format!(r#""{SECRET}/""#)),
        put_with(&format!(r#","externalIPs":["{SECRET}"]"#)),
        put_with(&format!(r#","labels":{{"{SECRET}":"1","{SECRET}":"1"}}"#)),
        put_with(&format!(r#","labels":{{"{SECRET}":1}}"#)),
        put_with(&format!(r#","ports":[{{"protocol":"TCP","port":1,"targetPort":["{SECRET}"]}}]"#)),
    ];
    for line in broken {
        let error = heard(&line).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(SECRET), "{line}: {error}");
    }
}
