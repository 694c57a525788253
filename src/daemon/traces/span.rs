//! Spans, in OTLP's form.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};

use jiff::Timestamp;
use uuid::Uuid;

/// Bytes of a text within a span; what is longer is cut.
const LONGEST: usize = 512;

/// A span that a request is part of (W3C Trace Context, `traceparent`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Parent {
    trace: [u8; 16],
    span: [u8; 8],
    /// Whether who asks has itself recorded; else nothing is to be.
    pub(crate) is_sampled: bool,
}

impl Parent {
    /// Reads `00-<32 hexadecimal digits>-<16>-<2>`; `None` if it is not that.
    pub(crate) fn of_header(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let version = hexadecimal::<1>(parts.next()?)?;
        let trace = hexadecimal(parts.next()?)?;
        let span = hexadecimal(parts.next()?)?;
        let [flags] = hexadecimal(parts.next()?)?;
        let more = parts.next().is_some();
        let nothing = trace == [0; 16] || span == [0; 8];
        (version != [0xff] && !(version == [0] && more) && !nothing).then_some(Self {
            trace,
            span,
            is_sampled: flags & 1 == 1,
        })
    }
}

fn hexadecimal<const N: usize>(text: &str) -> Option<[u8; N]> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != 2 * N || !text.bytes().all(is_digit) {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

/// A span that has begun.
#[derive(Debug)]
pub(crate) struct SpanDraft(Span);

impl SpanDraft {
    pub(crate) fn new(name: String, kind: SpanKind, began: Timestamp) -> Self {
        Self(Span {
            trace_id: Uuid::new_v4().as_bytes().to_vec(),
            span_id: Uuid::new_v4().as_bytes()[..8].to_vec(),
            name,
            kind: kind.into(),
            start_time_unix_nano: nanoseconds(began),
            flags: 1, // sampled
            ..Span::default()
        })
    }

    /// Of a request that others have begun.
    pub(crate) fn within(mut self, parent: Option<Parent>) -> Self {
        if let Some(parent) = parent {
            self.0.trace_id = parent.trace.to_vec();
            self.0.parent_span_id = parent.span.to_vec();
        }
        self
    }

    pub(crate) fn text(&mut self, key: &str, text: impl Into<String>) {
        self.0.attributes.push(self::text(key, text));
    }

    pub(crate) fn number(&mut self, key: &str, number: impl Into<i64>) {
        let value = Value::IntValue(number.into());
        self.0.attributes.push(attribute(key, value));
    }

    pub(crate) fn fraction(&mut self, key: &str, fraction: f64) {
        let value = Value::DoubleValue(fraction);
        self.0.attributes.push(attribute(key, value));
    }

    pub(crate) fn texts(&mut self, key: &str, texts: Vec<String>) {
        let values = texts.into_iter().map(|text| AnyValue {
            value: Some(Value::StringValue(text)),
        });
        let values = values.collect();
        let value = Value::ArrayValue(ArrayValue { values });
        self.0.attributes.push(attribute(key, value));
    }

    /// It failed.
    pub(crate) fn fail(&mut self, message: String) {
        self.0.status = Some(Status {
            message: cut(message),
            code: StatusCode::Error.into(),
        });
    }

    pub(crate) fn end(mut self, ended: Timestamp) -> Span {
        self.0.end_time_unix_nano = nanoseconds(ended).max(self.0.start_time_unix_nano);
        self.0
    }
}

pub(super) fn text(key: &str, text: impl Into<String>) -> KeyValue {
    attribute(key, Value::StringValue(cut(text.into())))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(LONGEST));
    text
}

fn nanoseconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn who_asks_may_have_a_trace_already() {
        let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let parent = Parent::of_header(header).expect("a parent");
        assert!(parent.is_sampled);
        assert_eq!((parent.trace[0], parent.span[7]), (0x0a, 0x31));
        let began = Timestamp::UNIX_EPOCH;
        let span = SpanDraft::new("x".to_owned(), SpanKind::Server, began).within(Some(parent));
        let span = span.end(began);
        assert_eq!(span.trace_id, parent.trace);
        assert_eq!(span.parent_span_id, parent.span);
        assert_eq!((span.span_id.len(), span.trace_id.len()), (8, 16));
        let unsampled = header.replace("-01", "-00");
        assert!(!Parent::of_header(&unsampled).expect("a parent").is_sampled);
        let later = header.replace("00-0a", "01-0a") + "-more";
        assert!(Parent::of_header(&later).is_some(), "later versions go on");
        for wrong in [
            "",
            "00",
            &format!("{header}-more"),
            &header.replace("00-0a", "ff-0a"),
            &header.replace("0af7", "0AF7"),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        ] {
            assert_eq!(Parent::of_header(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn texts_are_bounded() {
        assert_eq!(cut("é".repeat(1000)).len(), LONGEST);
    }

    proptest! {
        #[test]
        fn nothing_panics(header in "[0-9a-f-]{0,60}|\\PC{0,60}") {
            let _ = Parent::of_header(&header);
        }
    }
}
