//! Backups in S3, as a real server over a folder speaks it, and what its outages come to.

use std::{
    fs,
    path::Path,
    sync::mpsc,
    time::{Duration, Instant},
};

use cotton::{
    backup::{
        manifest,
        store::{Store, StoreError},
        stream::pack,
    },
    cluster::backup::BackupStore,
    executor::chain,
};

use super::{
    Seen, a_frozen_store_is_a_sentence, a_store_keeps_backups, archive, at, back_up, back_up_with,
    data, id, noise, restore, restore_interrupted,
};
use crate::support::{S3, eventually, s3::BUCKET};

/// How long a sentence may take when nothing is answered: three questions of 15 s with their pauses, and time to spare on a loaded machine.
const SENTENCE_LIMIT: Duration = Duration::from_secs(90);

/// More than two parts of 5 MiB, and less than three.
const THREE_PARTS: usize = 14 << 20;

/// So much has to be handed over until the first part is sent: the store keeps one part back, as a file of one part is stored at once.
const TWO_PARTS: usize = 12 << 20;

fn settings(s3: &S3, bucket: &str, credentials: &Path) -> BackupStore {
    BackupStore {
        region: Some("eu-central-1".to_owned()),
        endpoint: Some(format!("http://127.0.0.1:{}", s3.port())),
        credentials: Some(credentials.display().to_string()),
        ..at(format!("s3://{bucket}/cotton"))
    }
}

/// Goal: S3 keeps backups as a folder does, also those of more than one part and encrypted ones; and who may not, and an outage, is a
/// sentence and leaves nothing that could be taken for a backup.
#[tokio::test(flavor = "multi_thread")]
async fn s3_keeps_backups_and_its_outage_is_a_sentence() {
    let mut s3 = S3::start();
    let store = Store::open(&settings(&s3, BUCKET, &s3.credentials())).unwrap();
    a_store_keeps_backups(&store).await;

    let keys = tempfile::tempdir().unwrap();
    let key = keys.path().join("key");
    fs::write(&key, [7; 32]).unwrap();
    let encrypted = BackupStore {
        url: format!("s3://{BUCKET}/encrypted"),
        key: Some(key.display().to_string()),
        ..settings(&s3, BUCKET, &s3.credentials())
    };
    let encrypted = Store::open(&encrypted).unwrap();
    a_store_keeps_backups(&encrypted).await;
    archive::is_kept(&store).await;
    archive::is_kept(&encrypted).await;

    parts_make_one_file(&s3, &store).await;
    who_may_not_is_told_so(&s3, keys.path()).await;
    a_frozen_store_is_a_sentence(&store, "s3", SENTENCE_LIMIT, || s3.freeze(), || s3.thaw()).await;
    a_server_that_ends_is_one(&mut s3, &store).await;
}

/// What is larger than a part is the same again, and nothing is left of what was not completed.
async fn parts_make_one_file(s3: &S3, store: &Store) {
    let large = id("large/20260201T120000Z");
    back_up_with(store, &large, || noise(THREE_PARTS))
        .await
        .unwrap();
    assert_eq!(restore(store, "large").await.unwrap(), noise(THREE_PARTS));
    let file = s3.bucket().join("cotton").join(large.as_str()).join("data");
    assert!(file.metadata().unwrap().len() > THREE_PARTS as u64);

    let failing = id("large/20260202T120000Z");
    let packing = pack(None, |to| {
        to.write_all(&noise(THREE_PARTS))?;
        Err(std::io::Error::other("the tool has failed"))
    });
    let mut seen = Seen(0);
    let put = store.put(&failing, manifest::DATA_FILE, packing.unwrap(), &mut seen);
    let text = chain(&put.await.unwrap_err());
    assert!(text.contains("the tool has failed"), "{text}");
    assert!(!s3.bucket().join("cotton").join(failing.as_str()).exists());
    assert_eq!(s3.unfinished_uploads(), Vec::<String>::new());
}

/// Another secret, another user, a bucket that is not there: a sentence with the store's URL, without the secret.
async fn who_may_not_is_told_so(s3: &S3, folder: &Path) {
    let right = fs::read_to_string(s3.credentials()).unwrap();
    let (user, _) = right.split_once("\npassword").unwrap();
    let wrong = [
        format!("{user}\npassword: guessed-1234\n"),
        "username: NOBODY\npassword: guessed-1234\n".to_owned(),
    ];
    for account in wrong {
        let credentials = folder.join("credentials.yml");
        fs::write(&credentials, account).unwrap();
        let store = Store::open(&settings(s3, BUCKET, &credentials)).unwrap();
        let error = back_up(&store, &id("orders/20260205T120000Z"))
            .await
            .unwrap_err();
        assert!(matches!(error, StoreError::Operation { .. }), "{error:?}");
        let text = chain(&error);
        let names_it = text.contains(&format!("the backup store s3://{BUCKET}/cotton cannot"));
        assert!(names_it && text.contains("403"), "{text}");
        assert!(!text.contains("guessed-1234"), "{text}");
    }
    // The server makes what is written into, so it is only asked. That no store is taken for an empty one is what matters.
    let store = Store::open(&settings(s3, "others", &s3.credentials())).unwrap();
    let text = chain(&store.find("orders").await.unwrap_err());
    assert!(text.contains("NoSuchBucket"), "{text}");
    let gone = folder.join("gone.yml");
    let error = Store::open(&settings(s3, BUCKET, &gone)).unwrap_err();
    assert!(chain(&error).contains("gone.yml cannot be read"), "{error}");
}

/// The server ends when a part of a backup's data is stored; before another is read; and while one is.
async fn a_server_that_ends_is_one(s3: &mut S3, store: &Store) {
    let interrupted = id("interrupted/20260201T120000Z");
    let (go_on, may_go_on) = mpsc::channel();
    let packing = pack(None, move |to| {
        to.write_all(&noise(TWO_PARTS))?;
        may_go_on.recv().map_err(std::io::Error::other)?;
        to.write_all(&noise(THREE_PARTS))
    });
    let mut seen = Seen(0);
    let putting = store.put(
        &interrupted,
        manifest::DATA_FILE,
        packing.unwrap(),
        &mut seen,
    );
    let stopping = async {
        eventually("a part is stored", SENTENCE_LIMIT, async || {
            let uploads = s3.unfinished_uploads();
            uploads
                .iter()
                .any(|name| name.contains(".part-"))
                .then_some(())
        })
        .await;
        s3.stop();
        go_on.send(()).unwrap();
    };
    let asked = Instant::now();
    let (put, ()) = tokio::join!(putting, stopping);
    let error = put.unwrap_err();
    assert!(asked.elapsed() < SENTENCE_LIMIT, "{:?}", asked.elapsed());
    assert!(matches!(error, StoreError::Operation { .. }), "{error:?}");
    let error = restore(store, "orders").await.unwrap_err();
    assert!(matches!(error, StoreError::Operation { .. }), "{error:?}");

    // It ends while what is larger than one piece is being read.
    s3.restart();
    let error = restore_interrupted(store, "large", || s3.stop())
        .await
        .unwrap_err();
    let text = chain(&error);
    assert!(text.contains("cannot read a backup's data"), "{text}");

    s3.restart();
    let listed = store.list(&"interrupted".parse().unwrap()).await.unwrap();
    assert!(listed.is_empty(), "{listed:?}");
    // It is begun again under another id, by the same process.
    back_up(store, &id("interrupted/20260202T120000Z"))
        .await
        .unwrap();
    assert_eq!(restore(store, "interrupted").await.unwrap(), data());
}
