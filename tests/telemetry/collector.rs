//! A collector of OpenTelemetry traces that keeps what it is sent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span as Sent;
pub(crate) use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;

/// A span as it was sent.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) process: String,
    pub(crate) trace: Vec<u8>,
    pub(crate) id: Vec<u8>,
    /// Empty at the beginning of a trace.
    pub(crate) parent: Vec<u8>,
    pub(crate) name: String,
    pub(crate) kind: SpanKind,
    pub(crate) attributes: BTreeMap<String, String>,
}

#[derive(Clone, Default)]
pub(crate) struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
    pub(crate) endpoint: String,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let collector = Self {
            endpoint: format!("http://{}", listener.local_addr().unwrap()),
            ..Self::default()
        };
        let routes = axum::Router::new()
            .route("/v1/traces", post(take))
            .with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        collector
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }
}

async fn take(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) -> StatusCode {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    let mut spans = collector.spans.lock().unwrap();
    for of_process in request.resource_spans {
        let resource = attributes(of_process.resource.unwrap().attributes);
        let sent = of_process.scope_spans.into_iter().flat_map(|it| it.spans);
        spans.extend(sent.map(|span| Span::of(&resource["service.name"], span)));
    }
    StatusCode::OK
}

impl Span {
    fn of(process: &str, span: Sent) -> Self {
        let (began, ended) = (span.start_time_unix_nano, span.end_time_unix_nano);
        assert!(0 < began && began <= ended, "{span:?}");
        Self {
            process: process.to_owned(),
            kind: span.kind(),
            trace: span.trace_id,
            id: span.span_id,
            parent: span.parent_span_id,
            name: span.name,
            attributes: attributes(span.attributes),
        }
    }
}

fn attributes(all: Vec<KeyValue>) -> BTreeMap<String, String> {
    let read = |attribute: KeyValue| {
        let value = attribute.value.and_then(|value| value.value);
        let text = if let Some(Value::StringValue(text)) = value {
            text
        } else if let Some(Value::IntValue(number)) = value {
            number.to_string()
        } else {
            format!("{value:?}")
        };
        (attribute.key, text)
    };
    all.into_iter().map(read).collect()
}
