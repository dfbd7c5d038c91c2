//! What OpenTelemetry's own environment variables ask for. Nothing is exported unless an endpoint is named; what cannot
//! be meant is an error at the start, never a silent default. Opens nothing.
use super::sampler::Sampler;
use hyper::Uri;
use std::path::PathBuf;

/// Sampled where nothing is said, of the requests that come without a trace: one in a hundred.
const RATIO_DEFAULT: f64 = 0.01;
/// What is appended to an endpoint for all signals.
///
/// # Source
/// OpenTelemetry specification, "OTLP Exporter Configuration".
const TRACES_PATH: &str = "v1/traces";

/// How traces are exported.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// Where spans are posted.
    pub endpoint: String,
    /// The CA of its certificate, where it is not one of the system's.
    pub ca: Option<PathBuf>,
    pub sampler: Sampler,
    /// The name of the service; `None`: the SDK finds it in the environment.
    pub service: Option<&'static str>,
}

/// A variable that cannot be meant.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("environment variable {variable}={value}: {why}; {remedy}")]
pub struct Error {
    pub variable: &'static str,
    pub value: String,
    pub why: String,
    pub remedy: &'static str,
}

/// Reads the variables through `get`; `None`: nothing is to be exported.
///
/// # Errors
/// The first variable that cannot be meant.
pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Option<Asked>, Error> {
    // An empty variable is an unset one.
    let get = |name: &str| get(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
    let Some(endpoint) = endpoint(&get)? else { return Ok(None) };
    if get("OTEL_SDK_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    protocol(&get)?;
    let ca = get("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE").or_else(|| get("OTEL_EXPORTER_OTLP_CERTIFICATE"));
    let is_named = get("OTEL_SERVICE_NAME").is_some()
        || get("OTEL_RESOURCE_ATTRIBUTES")
            .is_some_and(|all| all.split(',').any(|a| a.trim().starts_with("service.name=")));
    Ok(Some(Asked {
        endpoint,
        ca: ca.map(PathBuf::from),
        sampler: sampler(&get)?,
        service: (!is_named).then_some("isthmus"),
    }))
}

fn endpoint(get: &impl Fn(&str) -> Option<String>) -> Result<Option<String>, Error> {
    let of_traces = get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").map(|url| ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", url));
    let of_all = || get("OTEL_EXPORTER_OTLP_ENDPOINT").map(|url| ("OTEL_EXPORTER_OTLP_ENDPOINT", url));
    let Some((variable, value)) = of_traces.or_else(of_all) else { return Ok(None) };
    let remedy = "write the collector's address as http://HOST:4318 or https://HOST:4318";
    let refused = |why: String| Error { variable, value: value.clone(), why, remedy };
    let url: Uri = value.parse().map_err(|e| refused(format!("it is no URL ({e})")))?;
    match url.scheme_str() {
        Some("http" | "https") => {}
        Some(other) => return Err(refused(format!("spans are sent by HTTP, not by {other}"))),
        None => return Err(refused("it has no scheme".into())),
    }
    if url.host().is_none_or(str::is_empty) || url.query().is_some() {
        return Err(refused("it is not an address and a path".into()));
    }
    Ok(Some(match variable {
        "OTEL_EXPORTER_OTLP_ENDPOINT" => format!("{}/{TRACES_PATH}", value.trim_end_matches('/')),
        _ => value,
    }))
}

fn protocol(get: &impl Fn(&str) -> Option<String>) -> Result<(), Error> {
    for variable in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
        let Some(value) = get(variable) else { continue };
        if value != "http/protobuf" {
            let why = "spans are sent as http/protobuf only".into();
            let remedy = "unset it and name the collector's HTTP port, which is 4318 by default";
            return Err(Error { variable, value, why, remedy });
        }
        break;
    }
    Ok(())
}

fn sampler(get: &impl Fn(&str) -> Option<String>) -> Result<Sampler, Error> {
    let named = get("OTEL_TRACES_SAMPLER");
    // A ratio that is left out is 1, by the specification; where no sampler is named at all it is ours.
    let ratio = ratio(get, if named.is_some() { 1.0 } else { RATIO_DEFAULT })?;
    Ok(match named.as_deref() {
        None | Some("parentbased_traceidratio") => Sampler::parent_based(ratio),
        Some("parentbased_always_on") => Sampler::parent_based(1.0),
        Some("parentbased_always_off") => Sampler::parent_based(0.0),
        Some("traceidratio") => Sampler::of_all(ratio),
        Some("always_on") => Sampler::of_all(1.0),
        Some("always_off") => Sampler::of_all(0.0),
        Some(other) => {
            return Err(Error {
                variable: "OTEL_TRACES_SAMPLER",
                value: other.into(),
                why: "there is no such sampler".into(),
                remedy: "take parentbased_traceidratio, parentbased_always_on, parentbased_always_off, traceidratio, \
                         always_on or always_off",
            });
        }
    })
}

fn ratio(get: &impl Fn(&str) -> Option<String>, default: f64) -> Result<f64, Error> {
    let variable = "OTEL_TRACES_SAMPLER_ARG";
    let Some(value) = get(variable) else { return Ok(default) };
    match value.parse::<f64>() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => {
            let why = "it is no share of requests".into();
            Err(Error { variable, value, why, remedy: "write a number from 0 to 1, such as 0.01" })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Option<Asked>, Error> {
        read(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    }

    #[test]
    fn nothing_is_exported_unless_an_endpoint_is_named() {
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&[("OTEL_TRACES_SAMPLER", "always_on"), ("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]), Ok(None));
        let disabled = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"), ("OTEL_SDK_DISABLED", "true")];
        assert_eq!(of(&disabled), Ok(None));
    }

    #[test]
    fn an_endpoint_alone_samples_one_request_in_a_hundred() {
        let asked = of(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/")]).expect("it is right").expect("it is on");
        assert_eq!(asked.endpoint, "http://c:4318/v1/traces");
        assert_eq!(asked.sampler, Sampler::parent_based(0.01));
        assert_eq!(asked.service, Some("isthmus"));
        let whole = [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://c/in"), ("OTEL_SERVICE_NAME", "fra")];
        let asked = of(&whole).expect("it is right").expect("it is on");
        assert_eq!((asked.endpoint.as_str(), asked.service), ("https://c/in", None));
    }

    #[test]
    fn a_sampler_is_the_one_that_is_named() {
        let sampler = |more: &[(&str, &str)]| {
            let all = [&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318")], more].concat();
            of(&all).map(|asked| asked.expect("it is on").sampler)
        };
        assert_eq!(sampler(&[("OTEL_TRACES_SAMPLER_ARG", "0.5")]), Ok(Sampler::parent_based(0.5)));
        assert_eq!(sampler(&[("OTEL_TRACES_SAMPLER", "traceidratio")]), Ok(Sampler::of_all(1.0)));
        assert_eq!(sampler(&[("OTEL_TRACES_SAMPLER", "always_off")]), Ok(Sampler::of_all(0.0)));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_name_and_what_to_do() {
        let on = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
        let cases: [&[(&str, &str)]; 7] = [
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318")],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "grpc://collector:4317")],
            &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://")],
            &[("OTEL_TRACES_SAMPLER", "sometimes"), on],
            &[("OTEL_TRACES_SAMPLER_ARG", "1.5"), on],
            &[("OTEL_TRACES_SAMPLER_ARG", "NaN"), on],
            &[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), on],
        ];
        for case in cases {
            let said = of(case).expect_err(case[0].1).to_string();
            assert!(said.contains(&format!("{}={}", case[0].0, case[0].1)), "{said}");
            assert!(said.contains("; "), "no remedy: {said}");
        }
    }
}
