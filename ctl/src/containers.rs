//! `ps`: the containers of the host.

use std::fmt::Write as _;

use serde::Deserialize;

use crate::client::{Client, parse};
use crate::error::Result;

/// What is shown of a container.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Container {
    id: String,
    names: Vec<String>,
    image: String,
    status: String,
    ports: Option<Vec<Port>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Port {
    #[serde(rename = "IP")]
    ip: Option<String>,
    #[serde(rename = "PrivatePort")]
    private: u16,
    #[serde(rename = "PublicPort")]
    public: Option<u16>,
    #[serde(rename = "Type")]
    protocol: Option<String>,
}

/// `keelctl ps [-a]`
pub fn ps(client: &Client, all: bool, json: bool) -> Result<()> {
    let text = client.request("GET", if all { "/containers/json?all=1" } else { "/containers/json" }, b"")?;
    if json {
        print!("{text}");
    } else {
        print!("{}", render(&parse::<Vec<Container>>(&text)?));
    }
    Ok(())
}

fn render(containers: &[Container]) -> String {
    let width =
        |of: fn(&Container) -> usize, least: usize| containers.iter().map(of).max().unwrap_or(0).clamp(least, 40) + 2;
    let names = width(|container| name(container).len(), 4);
    let images = width(|container| container.image.len(), 5);
    let states = width(|container| container.status.len(), 6);
    let mut text = format!("{:<14}{:<names$}{:<images$}{:<states$}PORTS\n", "ID", "NAME", "IMAGE", "STATUS");
    for container in containers {
        let id = container.id.get(..12).unwrap_or(&container.id);
        let ports: Vec<String> = container.ports.iter().flatten().map(Port::text).collect();
        let _ = writeln!(
            text,
            "{id:<14}{:<names$}{:<images$}{:<states$}{}",
            name(container),
            container.image,
            container.status,
            ports.join(", ")
        );
    }
    text
}

fn name(container: &Container) -> &str {
    container.names.first().map_or("", |name| name.trim_start_matches('/'))
}

impl Port {
    fn text(&self) -> String {
        let protocol = self.protocol.as_deref().unwrap_or("tcp");
        match self.public {
            Some(public) => {
                format!("{}:{public}->{}/{protocol}", self.ip.as_deref().unwrap_or("0.0.0.0"), self.private)
            }
            None => format!("{}/{protocol}", self.private),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_a_table() {
        let answer = r#"[{"Id":"0123456789abcdef","Names":["/web"],"Image":"nginx","Status":"Up 3 seconds",
            "Ports":[{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8080,"Type":"tcp"}],"Mounts":[]}]"#;
        let text = render(&serde_json::from_str::<Vec<Container>>(answer).unwrap());
        assert_eq!(text.lines().nth(1).unwrap(), "0123456789ab  web   nginx  Up 3 seconds  0.0.0.0:8080->80/tcp");
    }
}
