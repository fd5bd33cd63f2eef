//! `innkeeper explain`: what would become of a request, and why, without sending it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use serde_json::{Value, json};

use super::{OutputFormat, fail, print};
use crate::address::ListenAddress;
use crate::decision::RequestHead;
use crate::error::Refusal;
use crate::plugin::{HostSettings, PluginHost};
use crate::policy::{Policy, SampleRequest};
use crate::snapshot::{Builder, Caller, Snapshot, Step, Target, Trail};
use crate::surroundings::ProcessSurroundings;
use crate::telemetry::Metrics;

/// Tell what would become of a request, and why, without sending it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The policy.
    #[arg(long, short, env = "INNKEEPER_POLICY", value_name = "FILE")]
    policy: PathBuf,
    /// A request header, as curl takes it: `Name: value`; repeatable.
    #[arg(long = "header", short = 'H', value_name = "HEADER", value_parser = parse_header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The listener that the request comes in at, where a route names one.
    #[arg(long, value_name = "ADDRESS")]
    listener: Option<ListenAddress>,
    /// The request's method.
    #[arg(long = "request", short = 'X', default_value = "GET", value_name = "METHOD")]
    method: Method,
    /// How to print it.
    #[arg(long, default_value = "human")]
    format: OutputFormat,
    /// The request's URL or path: `http://acme.example.com/orders?q=1` or `/orders?q=1`.
    #[arg(value_name = "URL")]
    url: Uri,
}

/// Explains; the exit status is 0 where the request would be served, 1 where it would be refused.
pub async fn run(args: Args) -> ExitCode {
    let format = args.format;
    let snapshot = match load(&args).await {
        Ok(snapshot) => snapshot,
        Err(error) => return fail(error),
    };
    let head = Arc::new(sample(args).head());
    let explained = explain(&snapshot, &head).await;
    match format {
        OutputFormat::Json => print(&format!("{:#}", explained.to_json())),
        OutputFormat::Human => print(&explained.to_text()),
    }
    if explained.refusal.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn load(args: &Args) -> Result<Snapshot, String> {
    let (policy, _) = Policy::parse(&args.policy, &ProcessSurroundings).map_err(|error| error.to_string())?;
    let host = PluginHost::new(HostSettings::default()).map_err(|error| error.to_string())?;
    let builder = Builder::new(host, Metrics::new());
    let built = builder.build(policy, None).await.map_err(|error| error.to_string())?;
    Ok(built.snapshot)
}

fn sample(args: Args) -> SampleRequest {
    let headers: HeaderMap = args.headers.into_iter().collect();
    let host_header = headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
    let authority = args.url.authority().map(http::uri::Authority::as_str);
    let host = host_header.or(authority).unwrap_or("localhost").to_owned();
    SampleRequest { method: args.method, uri: args.url, host, headers, listener: args.listener }
}

struct Explained {
    route: Option<String>,
    steps: Vec<Step>,
    caller: Option<Caller>,
    target: Option<String>,
    refusal: Option<Refusal>,
}

async fn explain(snapshot: &Snapshot, head: &Arc<RequestHead>) -> Explained {
    let mut explained =
        Explained { route: None, steps: Vec::new(), caller: None, target: None, refusal: None };
    let matched = match snapshot.route(head) {
        Ok(matched) => matched,
        Err(refusal) => {
            explained.refusal = Some(refusal);
            return explained;
        }
    };
    explained.route = Some(matched.counts().route().to_string());
    let mut trail = Trail::explaining();
    let caller = matched.admit(head, &mut trail).await;
    explained.steps = trail.into_steps();
    explained.target = Some(match matched.target() {
        Target::Forward(target) => format!("forward to the upstream `{}`", target.upstream.settings().name),
        Target::Query(query) => format!("run its query in the database `{}`", query.database.name),
        Target::Sql(sql) => {
            format!("run the client's statement in the database `{}`", sql.endpoint.database.name)
        }
    });
    match caller {
        Ok(caller) => explained.caller = Some(caller),
        Err(stopped) => explained.refusal = Some(stopped.into()),
    }
    explained
}

impl Explained {
    fn to_text(&self) -> String {
        let mut lines = Vec::new();
        lines.push(format!("route     {}", self.route.as_deref().unwrap_or("none")));
        for step in &self.steps {
            lines.push(format!("resolver  {}: {}", step.resolver, step.said));
        }
        match &self.caller {
            Some(Caller::NoTenant) => lines.push("tenant    none, as the route says".into()),
            Some(Caller::Tenant { admitted, placement, by, ruling }) => {
                let tenant = admitted.tenant();
                let (id, schema) = (&tenant.id, tenant.schema.as_str());
                lines.push(format!("tenant    {id} in schema {schema:?}, named by its {}", by.kind));
                if let Some(plugin) = &by.plugin {
                    lines.push(format!("plugin    {} version {}", plugin.name, plugin.version));
                }
                for (name, value) in &placement.headers {
                    lines.push(format!("header    {name}: {}", String::from_utf8_lossy(value.as_bytes())));
                }
                if let Some(limits) = &tenant.limits {
                    lines.push(format!("limits    {limits}"));
                }
                for one in ruling.placed().into_iter().chain(ruling.mirror()) {
                    let rule = one.rule();
                    let reason = rule.reason.as_ref().map(|reason| format!(" because {reason}"));
                    lines.push(format!(
                        "override  {}: {}{}",
                        rule.id,
                        rule.action,
                        reason.unwrap_or_default()
                    ));
                }
                if let (Some(upstream), None) = (&placement.upstream, ruling.upstream()) {
                    lines.push(format!("upstream  {upstream}, chosen by the plugin"));
                }
            }
            None => {}
        }
        match (&self.refusal, &self.target) {
            (Some(refusal), _) => lines.push(format!("refused   {} {refusal}", refusal.status().as_u16())),
            (None, Some(target)) => lines.push(format!("target    {target}")),
            (None, None) => {}
        }
        lines.join("\n")
    }

    fn to_json(&self) -> Value {
        let mut document = json!({
            "route": self.route,
            "resolvers": self.steps.iter()
                .map(|step| json!({ "resolver": step.resolver, "said": step.said }))
                .collect::<Vec<_>>(),
            "target": self.target,
        });
        if let Some(Caller::Tenant { admitted, placement, by, ruling }) = &self.caller {
            let tenant = admitted.tenant();
            document["tenant"] = json!(tenant.id.as_str());
            document["schema"] = json!(tenant.schema.as_str());
            document["resolver"] = json!(by.kind);
            document["reason"] = json!(placement.reason);
            document["limits"] = json!(tenant.limits.as_ref().map(ToString::to_string));
            document["override"] = json!(ruling.placed().map(|placed| &placed.rule().id));
            document["upstream"] = json!(placement.upstream);
            if let Some(plugin) = &by.plugin {
                document["plugin"] = json!({ "name": &*plugin.name, "version": &*plugin.version });
            }
        }
        if let Some(refusal) = &self.refusal {
            document["refused"] = json!({
                "code": refusal.code().as_str(),
                "status": refusal.status().as_u16(),
                "detail": refusal.detail(),
                "cause": refusal.cause(),
            });
        }
        document
    }
}

fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("a header is written `Name: value`")?;
    let name = name.trim().parse().map_err(|_| format!("`{name}` is no header name"))?;
    let value = value.trim().parse().map_err(|_| format!("the value of `{name}` is no header value"))?;
    Ok((name, value))
}
