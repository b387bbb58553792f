//! The end of this boot.

use keel_spec::api::Restart;

use crate::client::{Client, parse};
use crate::error::Result;

/// Restarts the host; `kexec`: without the firmware, or through it, instead of what its machine config says.
pub fn reboot(client: &Client, kexec: Option<bool>, json: bool) -> Result<()> {
    let query = match kexec {
        None => "",
        Some(true) => "?kexec=1",
        Some(false) => "?kexec=0",
    };
    let text = client.patient_request("POST", &format!("/keel/v1/reboot{query}"), b"")?;
    // A host of an earlier release says nothing.
    let restart = if text.is_empty() { Restart::default() } else { parse(&text)? };
    if json {
        println!("{}", serde_json::json!({ "accepted": "reboot", "kexec": restart.kexec, "refused": restart.refused }));
        return Ok(());
    }
    if let Some(why) = &restart.refused {
        println!("{why}; the restart goes through the firmware");
    }
    going("reboot");
    if let Some(version) = &restart.kexec {
        println!("the kernel of {version} starts without the firmware");
    }
    Ok(())
}

/// Switches the host off.
pub fn poweroff(client: &Client, json: bool) -> Result<()> {
    client.request("POST", "/keel/v1/poweroff", b"")?;
    if json {
        println!("{}", serde_json::json!({ "accepted": "poweroff" }));
    } else {
        going("poweroff");
    }
    Ok(())
}

fn going(what: &str) {
    println!("{what}: the host stops its containers and services, then goes down");
}
