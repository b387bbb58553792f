//! One request with its redirects, under the caps of its caller.

use std::path::PathBuf;
use std::time::Duration;

use keel_spec::paths;
use ureq::http::{HeaderMap, Uri, header};
use ureq::{Agent, AsSendBody};

use crate::connect::{self, Dial, SecureDial};
use crate::error::Error;
use crate::forward::ToProxy;
use crate::message::{Body, Method, Request, Response};
use crate::proxy::{self, Chosen, Proxies, Route};
use crate::resolve::DnsResolver;
use crate::steady::LeastRate;
use crate::tls::Trust;
use crate::{range, url};
use ureq::unversioned::transport::{ConnectProxyConnector, Connector};

/// Redirects followed before giving up.
pub const MAX_REDIRECTS: u32 = 5;
/// Longest head of a response.
const MAX_HEADER_BYTES: usize = 64 * 1024;
/// Size of each of a connection's two buffers.
const BUFFER_BYTES: usize = 32 * 1024;
/// Connections kept open for a next request, in all and to one host.
const MAX_IDLE_CONNECTIONS: usize = 4;

/// How a client works.
#[derive(Clone, Debug)]
pub struct Options {
    /// Trust anchors, PEM; read when the first https request is made.
    pub ca_file: PathBuf,
    /// Further trust anchors, PEM.
    pub extra_ca_pem: Option<String>,
    /// For resolving, and again for connecting (TCP and TLS together).
    pub connect_timeout: Duration,
    /// For each single read and write; the request as a whole may take any time.
    pub idle_timeout: Duration,
    /// How much has to come while it is waited for, if it matters; beyond that is [`Error::Slow`].
    pub least_rate: Option<LeastRate>,
    /// Value of the `User-Agent` header.
    pub user_agent: String,
    /// Name servers, in the format of resolv.conf(5).
    pub resolv_conf: PathBuf,
    /// Names known without asking, in the format of hosts(5).
    pub hosts: PathBuf,
    /// Which requests go through a proxy.
    pub proxies: Proxies,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ca_file: paths::CA_CERTIFICATES.into(),
            extra_ca_pem: None,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            least_rate: None,
            user_agent: concat!("keel/", env!("CARGO_PKG_VERSION")).into(),
            resolv_conf: paths::RESOLV_CONF.into(),
            hosts: "/etc/hosts".into(),
            proxies: Proxies::default(),
        }
    }
}

/// A client: cheap to clone, usable from many threads, keeps a few connections open.
#[derive(Clone, Debug)]
pub struct Client {
    agent: Agent,
    /// Makes requests to proxies in their form.
    forwarding: Agent,
    proxies: Chosen,
    connect_timeout: Duration,
    idle_timeout: Duration,
}

impl Client {
    /// A client. No file is read and no connection made yet; an `extra_ca_pem` that holds no
    /// certificate is refused here ([`Error::Setup`]).
    pub fn new(options: Options) -> Result<Self, Error> {
        let trust = Trust::new(options.ca_file, options.extra_ca_pem)
            .map_err(|reason| Error::Setup { url: "any address".into(), reason })?;
        let proxies =
            Chosen::new(options.proxies).map_err(|reason| Error::Setup { url: "any address".into(), reason })?;
        let config = Agent::config_builder()
            // Statuses, redirects and proxies are ours to decide on: an environment must not route us elsewhere.
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(options.user_agent)
            .accept_encoding("identity")
            .max_response_header_size(MAX_HEADER_BYTES)
            .input_buffer_size(BUFFER_BYTES)
            .output_buffer_size(BUFFER_BYTES)
            .max_idle_connections(MAX_IDLE_CONNECTIONS)
            .max_idle_connections_per_host(MAX_IDLE_CONNECTIONS)
            .timeout_resolve(Some(options.connect_timeout))
            .timeout_connect(Some(options.connect_timeout))
            .timeout_recv_response(Some(options.idle_timeout.saturating_mul(2)))
            .timeout_per_read(Some(options.idle_timeout))
            .timeout_per_write(Some(options.idle_timeout))
            .build();
        let dial = || ().chain(ConnectProxyConnector::default()).chain(Dial::new(options.least_rate));
        let secure = SecureDial::new(trust);
        let resolver = || DnsResolver::new(options.resolv_conf.clone(), options.hosts.clone());
        let to_proxy = dial().chain(secure.clone()).chain(ToProxy);
        Ok(Self {
            forwarding: Agent::with_parts(config.clone(), to_proxy, resolver()),
            agent: Agent::with_parts(config, dial().chain(secure), resolver()),
            proxies,
            connect_timeout: options.connect_timeout,
            idle_timeout: options.idle_timeout,
        })
    }

    /// `GET`. See [`Client::request`].
    pub fn get(&self, request: &Request) -> Result<Response, Error> {
        self.request(Method::Get, request)
    }

    /// Sends a request and returns the head of the response, whatever its status, with the stream of its body.
    /// Redirects of `GET` and `HEAD` are followed, at most [`MAX_REDIRECTS`], never from https to http;
    /// `Authorization` goes to the first host only.
    pub fn request(&self, method: Method, request: &Request) -> Result<Response, Error> {
        let first = url::parse(request.url)?;
        let mut target = first.clone();
        for _ in 0..=MAX_REDIRECTS {
            let may_authorize = url::same_origin(&first, &target);
            let response = self.send(method, request, &target, may_authorize)?;
            match self.redirect(method, &target, &response)? {
                None => return finish(request, method, response),
                Some(next) => target = next,
            }
        }
        Err(Error::Protocol {
            url: url::shown(&first),
            reason: format!("more than {MAX_REDIRECTS} redirects, the last to {}", url::shown(&target)),
        })
    }

    fn redirect(&self, method: Method, from: &Uri, response: &Response) -> Result<Option<Uri>, Error> {
        if !matches!(method, Method::Get | Method::Head) || !matches!(response.status, 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let bad = |reason: String| Error::Protocol { url: url::shown(from), reason };
        let location = response
            .header(header::LOCATION.as_str())
            .ok_or_else(|| bad(format!("the server answered {} without a usable Location", response.status)))?;
        let next = url::join(from, location).map_err(|error| bad(format!("bad redirect: {error}")))?;
        if from.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
            return Err(bad(format!("refused a redirect from https to {}", url::shown(&next))));
        }
        Ok(Some(next))
    }

    fn send(&self, method: Method, request: &Request, target: &Uri, may_authorize: bool) -> Result<Response, Error> {
        let shown = url::shown(target);
        let (name, body) = match method {
            Method::Get => ("GET", None),
            Method::Head => ("HEAD", None),
            Method::Post => ("POST", Some(request.body)),
            Method::Put => ("PUT", Some(request.body)),
            Method::Patch => ("PATCH", Some(request.body)),
        };
        let mut head = ureq::http::Request::builder().method(name).uri(target.clone());
        for (name, value) in request.headers {
            if may_authorize || !name.eq_ignore_ascii_case(header::AUTHORIZATION.as_str()) {
                head = head.header(*name, *value);
            }
        }
        if let Some(range) = &request.range {
            let value = range::header(range)
                .ok_or(Error::Url { url: shown.clone(), reason: "the range asked for holds no byte" })?;
            head = head.header(header::RANGE, value);
        } else if !request.ranges.is_empty() {
            let value = range::header_of_all(request.ranges)
                .ok_or(Error::Url { url: shown.clone(), reason: "a range asked for holds no byte" })?;
            head = head.header(header::RANGE, value);
        }
        let route = self.proxies.route(target);
        let sent = match body {
            None => head.body(()).map_err(ureq::Error::from).and_then(|message| self.run(message, route)),
            Some(body) => head.body(body).map_err(ureq::Error::from).and_then(|message| self.run(message, route)),
        };
        let message = sent.map_err(|error| connect::explain(&shown, error, self.connect_timeout, self.idle_timeout))?;
        let (head, body) = message.into_parts();
        let length = content_length(&head.headers).or(body.content_length());
        Ok(Response {
            status: head.status.as_u16(),
            headers: head.headers,
            length,
            url: shown.clone(),
            body: Body {
                url: shown,
                inner: body.into_reader(),
                max_bytes: request.max_bytes,
                read_bytes: 0,
                idle_timeout: self.idle_timeout,
            },
        })
    }
}

impl Client {
    fn run(
        &self,
        mut message: ureq::http::Request<impl AsSendBody>,
        route: Route<'_>,
    ) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        match route {
            Route::Direct => self.agent.run(message),
            Route::Tunnel(proxy) => {
                self.agent.run(self.agent.configure_request(message).proxy(Some(proxy.clone())).build())
            }
            Route::Forward(proxy) => {
                proxy::forward(proxy, &mut message)?;
                self.forwarding.run(message)
            }
        }
    }
}

/// Holds the head of the final response against what was asked for.
fn finish(request: &Request, method: Method, response: Response) -> Result<Response, Error> {
    if response.status == 206 && request.ranges.is_empty() {
        let bad = |reason: String| Error::Protocol { url: response.url.clone(), reason };
        let asked = request.range.as_ref().ok_or_else(|| bad("206 although no range was asked for".into()))?;
        let told = response.header(header::CONTENT_RANGE.as_str()).unwrap_or_default();
        range::check(asked, told, response.length).map_err(bad)?;
    }
    if method != Method::Head && response.length.is_some_and(|length| length > request.max_bytes) {
        return Err(Error::TooLong { url: response.url, max_bytes: request.max_bytes });
    }
    Ok(response)
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
