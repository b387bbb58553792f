//! What removing an image means: Docker's rules, decided on the records alone.

use crate::digest::{Digest, ImageId};
use crate::error::Error;
use crate::records::{Images, Record};
use crate::reference::Reference;
use crate::store::Removed;

/// Takes a name or an image from the records. Returns what to tell, and the layers that may have become useless.
pub fn remove(
    images: &mut Images,
    text: &str,
    force: bool,
    in_use: &dyn Fn(&ImageId) -> bool,
) -> Result<(Vec<Removed>, Vec<Digest>), Error> {
    let id = images.find(text)?;
    let record = images.get(&id).cloned().unwrap_or_default();
    let by_name = name_of(text, &record);
    if let Some(name) = &by_name
        && names_left(&record, name)
    {
        images.unname(&id, |other| other != name);
        return Ok((vec![Removed::Untagged(name.clone())], Vec::new()));
    }
    let conflict = |hint, reason: String| Error::Conflict { name: text.to_owned(), hint, reason };
    if by_name.is_none() && record.tags.len() > 1 && !force {
        return Err(conflict("must be forced", "image is referenced in multiple repositories".into()));
    }
    let used = in_use(&id);
    if used && !force {
        return Err(conflict("must be forced", format!("container is using its referenced image {}", id.short())));
    }
    let names = record.tags.iter().chain(&record.digests).cloned();
    let mut removed: Vec<_> = names.map(Removed::Untagged).collect();
    if used {
        // Its containers' mounts need the layers; the image stays without a name.
        if removed.is_empty() {
            return Err(conflict("cannot be forced", format!("image {} is being used by a container", id.short())));
        }
        images.unname(&id, |_| false);
        return Ok((removed, Vec::new()));
    }
    images.remove(&id);
    removed.push(Removed::Deleted(id.to_string()));
    Ok((removed, record.layers))
}

/// Takes an image with all its names from the records, unless it is in use or gone already.
pub fn prune(
    images: &mut Images,
    id: &ImageId,
    in_use: &dyn Fn(&ImageId) -> bool,
) -> Result<(Vec<Removed>, Vec<Digest>), Error> {
    let Some(record) = images.get(id).filter(|_| !in_use(id)).cloned() else { return Ok((Vec::new(), Vec::new())) };
    images.remove(id);
    let mut removed: Vec<_> = record.tags.into_iter().chain(record.digests).map(Removed::Untagged).collect();
    removed.push(Removed::Deleted(id.to_string()));
    Ok((removed, record.layers))
}

/// The name that was meant, if it was a name.
fn name_of(text: &str, record: &Record) -> Option<String> {
    let name = text.parse::<Reference>().ok()?.to_string();
    record.tags.iter().chain(&record.digests).find(|other| **other == name).cloned()
}

/// Whether an image still has a tag when it has lost this name; names by digest alone don't keep it.
fn names_left(record: &Record, name: &str) -> bool {
    record.tags.iter().any(|tag| tag != name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(tags: &[&str]) -> (Images, ImageId) {
        let mut images = Images::default();
        let id = Digest::of(b"config");
        images.add(id, vec![Digest::of(b"layer")], None, None);
        for tag in tags {
            images.name(&id, &tag.parse().unwrap(), 0).unwrap();
        }
        (images, id)
    }

    #[test]
    fn an_image_goes_with_its_last_name() {
        let (mut images, id) = images(&["a:1", "b:1"]);
        let (removed, layers) = remove(&mut images, "a:1", false, &|_| true).unwrap();
        assert_eq!((removed, layers), (vec![Removed::Untagged("a:1".into())], vec![]));
        let (removed, layers) = remove(&mut images, "b:1", false, &|_| false).unwrap();
        assert_eq!(removed, [Removed::Untagged("b:1".into()), Removed::Deleted(id.to_string())]);
        assert_eq!((layers, images.get(&id)), (vec![Digest::of(b"layer")], None));
    }

    #[test]
    fn an_image_in_use_keeps_its_layers_even_by_force() {
        let (mut images, id) = images(&["a:1"]);
        assert!(matches!(remove(&mut images, "a:1", false, &|_| true), Err(Error::Conflict { .. })));
        let (removed, layers) = remove(&mut images, "a:1", true, &|_| true).unwrap();
        assert_eq!((removed, layers), (vec![Removed::Untagged("a:1".into())], vec![]));
        assert!(images.get(&id).is_some());
        assert!(matches!(remove(&mut images, &id.to_string(), true, &|_| true), Err(Error::Conflict { .. })));
    }

    #[test]
    fn pruning_takes_all_names_but_never_what_is_in_use() {
        let (mut images, id) = images(&["a:1", "b:1"]);
        assert_eq!(prune(&mut images, &id, &|_| true).unwrap(), (vec![], vec![]));
        assert_eq!(prune(&mut images, &id, &|_| false).unwrap().0.len(), 3);
        assert_eq!(prune(&mut images, &id, &|_| false).unwrap(), (vec![], vec![]));
    }

    #[test]
    fn an_id_with_several_names_needs_force() {
        let (mut images, id) = images(&["a:1", "b:1"]);
        assert!(matches!(remove(&mut images, &id.short(), false, &|_| false), Err(Error::Conflict { .. })));
        assert_eq!(remove(&mut images, &id.short(), true, &|_| false).unwrap().0.len(), 3);
    }
}
