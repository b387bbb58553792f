//! Times how long an image takes from the order to a mounted root: `mount_time ARCHIVE FOLDER ROUNDS`. Prints
//! milliseconds as a JSON list.

use std::path::Path;
use std::time::Instant;

use keel_store::{IdMap, Options, Store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [archive, folder, rounds] = arguments.as_slice() else { return Err("ARCHIVE FOLDER ROUNDS".into()) };
    let folder = Path::new(folder);
    let store = Store::open(&folder.join("store"), Options::default())?;
    let loaded = store.load(&mut std::fs::File::open(archive)?, &mut |_| {})?;
    let image = &loaded.first().ok_or("the archive has no image")?.id;
    let mut samples = Vec::new();
    for round in 0..rounds.parse::<u32>()? {
        let mapping = IdMap { host_base: (round + 1) << 16, count: 1 << 16 };
        let upper = folder.join(format!("container-{round}"));
        let begun = Instant::now();
        let mount = store.mount(image, &upper, Some(mapping))?;
        samples.push(begun.elapsed().as_secs_f64() * 1000.0);
        drop(mount);
    }
    println!("{}", serde_json::to_string(&samples)?);
    Ok(())
}
