//! Traces: what one request goes through, in this process and in the next, for an OpenTelemetry
//! collector.
//!
//! Spans are recorded that belong to a trace. A trace begins with [`begin`] alone, and goes on in
//! another process with [`go_on`]: so who is not authenticated has no trace to fill, and nothing that
//! a device sends says whether there is one.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{Link, SpanKind, TraceContextExt as _, TraceId, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SamplingResult, SdkTracerProvider, ShouldSample};
use reqwest::Url;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::Layer;

/// Longest time for the last spans to leave a process that ends.
const FAREWELL: Duration = Duration::from_secs(5);
/// Where in a trace somebody is, by W3C Trace Context.
const PLACE: &str = "traceparent";
/// Field of a span that says of which kind it is.
const KIND: &str = "otel.kind";

/// Whether spans are recorded; as global as the subscriber that does it.
static RECORDS: OnceLock<()> = OnceLock::new();

/// Whom the way of requests is told.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Tracing {
    /// OpenTelemetry collector that takes OTLP over HTTP, at port 4318 as a rule. Without one nothing is
    /// recorded.
    #[arg(long, env = "REHOME_TRACE_ENDPOINT", value_name = "URL", value_parser = endpoint, global = true)]
    trace_endpoint: Option<Url>,
    /// Share of registration requests that are recorded, from 0 to 1.
    #[arg(long, env = "REHOME_TRACE_RATIO", default_value = "0.1", value_parser = ratio, global = true)]
    trace_ratio: f64,
}

/// What records spans.
type Spans = Box<dyn Layer<Registry> + Send + Sync>;

/// What sends the spans of a process, in a thread of its own. What waits for that is bounded, and
/// what the collector does not take is dropped and told.
pub(super) struct Sending(SdkTracerProvider);

/// Begins a trace with this span, if chance has it that the request is recorded. Says where in the
/// trace the span is, for [`go_on`].
pub fn begin(span: &Span) -> Option<String> {
    RECORDS.get()?;
    span.record(KIND, "server");
    let context = span.context();
    if !context.span().span_context().is_sampled() {
        return None;
    }
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&context, &mut carrier);
    carrier.remove(PLACE)
}

/// Has this span, which must be new, go on with the trace of another process. What is no place in a
/// trace that is recorded is none.
pub fn go_on(span: &Span, place: &str) {
    if RECORDS.get().is_none() {
        return;
    }
    let carrier = HashMap::from([(PLACE.to_owned(), place.to_owned())]);
    let before = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
    if before.span().span_context().is_sampled() {
        span.record(KIND, "consumer");
        // An error means that nobody records this span.
        let _ = span.set_parent(before);
    }
}

impl Tracing {
    /// What records spans, and what sends them, if there is a collector.
    pub(super) fn start(
        &self,
        process: &'static str,
    ) -> Result<Option<(Spans, Sending)>, ExporterBuildError> {
        let Some(endpoint) = &self.trace_endpoint else {
            return Ok(None);
        };
        let url = format!("{}/v1/traces", endpoint.as_str().trim_end_matches('/'));
        let exporter = SpanExporter::builder().with_http().with_endpoint(url);
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder()
            .with_service_name(format!("rehome-{process}"))
            .with_attribute(version);
        let provider = SdkTracerProvider::builder()
            .with_resource(resource.build())
            .with_sampler(Sampler::ParentBased(Box::new(Requests(self.trace_ratio))))
            .with_batch_exporter(exporter.build()?)
            .build();
        // Ours alone, and no log lines.
        let ours = filter_fn(|metadata| {
            metadata.is_span() && metadata.target().starts_with(env!("CARGO_CRATE_NAME"))
        });
        let spans = recorder(&provider).with_filter(ours).boxed();
        // Started twice, as in a test, the first counts, as with the subscriber.
        let _ = RECORDS.set(());
        Ok(Some((spans, Sending(provider))))
    }
}

impl Sending {
    /// Sends what is left, for a while.
    pub(super) async fn end(self) {
        let sent = move || self.0.shutdown_with_timeout(FAREWELL);
        // What cannot be sent is told by the exporter.
        let _ = tokio::task::spawn_blocking(sent).await;
    }
}

/// A span says what its fields are, and nothing of the program: neither file nor thread.
fn recorder(provider: &SdkTracerProvider) -> impl Layer<Registry> + use<> {
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("rehome"))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        // Spans are in a trace by their parents. They may also be entered before it is known in which.
        .with_context_activation(false)
}

/// Of what belongs to no trace, this share of requests is recorded, and nothing else.
#[derive(Debug, Clone)]
struct Requests(f64);

impl ShouldSample for Requests {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let share = if *kind == SpanKind::Server {
            self.0
        } else {
            0.0
        };
        Sampler::TraceIdRatioBased(share)
            .should_sample(parent, trace, name, kind, attributes, links)
    }
}

/// Without a password: the address stands in log lines.
fn endpoint(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|error| format!("{error}"))?;
    let is_bare = url.username().is_empty() && url.password().is_none();
    if ["http", "https"].contains(&url.scheme()) && url.has_host() && is_bare {
        return Ok(url);
    }
    Err("must be http://HOST:PORT or https://HOST:PORT".to_owned())
}

fn ratio(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.0..=1.0).contains(&share) {
        return Ok(share);
    }
    Err("must be from 0 to 1".to_owned())
}

#[cfg(test)]
mod tests {
    use opentelemetry_sdk::trace::{InMemorySpanExporter, SpanData};
    use tracing::field::Empty;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    const OTHERS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn recorded(share: f64, run: impl FnOnce()) -> Vec<SpanData> {
        let spans = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(Requests(share))))
            .with_simple_exporter(spans.clone())
            .build();
        let _ = RECORDS.set(());
        let subscriber = tracing_subscriber::registry().with(recorder(&provider));
        tracing::subscriber::with_default(subscriber, run);
        spans.get_finished_spans().unwrap()
    }

    fn place(span: &SpanData) -> String {
        let context = &span.span_context;
        format!("00-{}-{}-01", context.trace_id(), context.span_id())
    }

    #[test]
    fn a_trace_begins_with_a_request_and_has_all_within_it_and_nothing_else() {
        let mut told = None;
        let spans = recorded(1.0, || {
            let alone = tracing::info_span!("alone", otel.kind = Empty);
            alone.in_scope(|| drop(tracing::info_span!("within nothing")));
            let request = tracing::info_span!("request", otel.kind = Empty, operation = 7);
            told = begin(&request);
            request.in_scope(|| drop(tracing::info_span!("call", otel.kind = "client")));
        });
        let [call, request] = &spans[..] else {
            panic!("{spans:?}")
        };
        assert_eq!(told, Some(place(request)));
        assert_eq!(
            (&*request.name, &request.span_kind),
            ("request", &SpanKind::Server)
        );
        assert_eq!((&*call.name, &call.span_kind), ("call", &SpanKind::Client));
        assert_eq!(call.parent_span_id, request.span_context.span_id());
        assert_eq!(
            call.span_context.trace_id(),
            request.span_context.trace_id()
        );
    }

    #[test]
    fn a_trace_of_another_process_goes_on_whatever_the_share_is() {
        let spans = recorded(0.0, || {
            let pass = tracing::info_span!("pass", otel.kind = Empty);
            // Entered already, as a function is that has a span.
            pass.in_scope(|| {
                go_on(&pass, OTHERS);
                drop(tracing::info_span!("call"));
            });
        });
        let [call, pass] = &spans[..] else {
            panic!("{spans:?}")
        };
        assert_eq!(
            (&*pass.name, &pass.span_kind),
            ("pass", &SpanKind::Consumer)
        );
        let before = format!(
            "00-{}-{}-01",
            pass.span_context.trace_id(),
            pass.parent_span_id
        );
        assert_eq!(before, OTHERS);
        assert_eq!(call.parent_span_id, pass.span_context.span_id());
    }

    #[test]
    fn what_is_no_place_in_a_recorded_trace_is_none() {
        for text in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "nonsense",
        ] {
            let spans = recorded(1.0, || {
                go_on(&tracing::info_span!("pass", otel.kind = Empty), text);
            });
            assert!(spans.is_empty(), "{text}: {spans:?}");
        }
    }

    #[test]
    fn about_the_share_that_was_asked_for_is_recorded() {
        let recorded = |share| {
            let mut told = 0;
            let spans = recorded(share, || {
                for _ in 0..2_000 {
                    let request = tracing::info_span!("request", otel.kind = Empty);
                    told += usize::from(begin(&request).is_some());
                }
            });
            assert_eq!(spans.len(), told);
            told
        };
        assert_eq!((recorded(0.0), recorded(1.0)), (0, 2_000));
        // Eight times the deviation that chance gives.
        let some = recorded(0.2);
        assert!((260..=540).contains(&some), "{some}");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in [
            "",
            "collector:4318",
            "grpc://collector",
            "http://",
            "http://somebody:secret@collector",
        ] {
            assert!(endpoint(text).is_err(), "{text}");
        }
        assert!(endpoint("http://collector.observability:4318").is_ok());
        for text in ["", "-0.1", "1.5", "NaN", "all"] {
            assert!(ratio(text).is_err(), "{text}");
        }
        assert_eq!((ratio("0"), ratio("1")), (Ok(0.0), Ok(1.0)));
    }
}
