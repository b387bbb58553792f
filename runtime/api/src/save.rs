//! Images on their way out: `/images/get` and `/images/{name}/get`, archives made while they are sent.

use hyper::StatusCode;
use tokio::sync::oneshot;

use crate::call::{Call, ChannelWriter, long_permit};
use crate::respond::{ChannelBody, Failure, stream};
use crate::router::Answer;

/// `GET /images/get?names=…`
pub async fn several(call: Call) -> Answer {
    let names: Vec<String> = call.query.all("names").map(str::to_owned).collect();
    if names.is_empty() {
        return Err(Failure::bad_request("names of images are wanted: ?names=NAME"));
    }
    save(call, names).await
}

/// `GET /images/{name}/get`
pub async fn one(call: Call) -> Answer {
    let names = vec![call.name.clone()];
    save(call, names).await
}

/// What the archive holds is decided first: until then a failure is the answer's status. Later it breaks the answer
/// off, so that no client takes half an archive for a whole one.
async fn save(call: Call, names: Vec<String>) -> Answer {
    let permit = long_permit(&call.context)?;
    let (producer, body) = ChannelBody::new();
    let (decided, decision) = oneshot::channel();
    tokio::task::spawn_blocking(move || {
        let engine = &call.context.engine;
        let saving = match engine.store().save(&names) {
            Ok(saving) => saving,
            Err(error) => {
                let _ = decided.send(Err(Failure::from(error)));
                return;
            }
        };
        let _ = decided.send(Ok(()));
        let mut writer = ChannelWriter::new(producer);
        if let Err(error) = saving.write(&mut writer) {
            log::warn!("saving images: {}", keel_link::logger::chain(&error));
            writer.fail();
        } else {
            let saved = names.iter().filter_map(|name| engine.store().image(name).ok());
            saved.for_each(|image| engine.tell_of_image("save", &image.id));
        }
        drop(permit);
    });
    decision.await.map_err(|_| Failure::internal("the worker that saves images ended early"))??;
    Ok(stream(StatusCode::OK, "application/x-tar", body))
}
