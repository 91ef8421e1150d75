//! The task's root: the image below, the scratch disk above. Both disks are there from the beginning, and are the same
//! for any request. So init mounts them before the request comes, while other modules load and the host connects: most
//! of the time goes to waiting for the disks.

use crate::machine::step_error::{StepError, failed};
use crate::machine::steps;
use nix::mount::{MsFlags, mount as mount_at};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

pub const ROOT: &str = "/task/root";
const IMAGE: &str = "/task/image";
const SCRATCH: &str = "/task/scratch";
const IMAGE_DEVICE: &str = "/dev/vda";
const SCRATCH_DEVICE: &str = "/dev/vdb";

const DEVICE_DEADLINE: Duration = Duration::from_secs(5);
const DEVICE_PAUSE: Duration = Duration::from_millis(5);

type Outcome = Result<(), StepError>;

static EARLY: Mutex<Option<oneshot::Receiver<Outcome>>> = Mutex::new(None);

/// Call it once the modules for it are loaded. A machine that ends meanwhile may leave them mounted: no data of a task
/// is on them yet.
pub fn mount_in_background() {
    let (told, outcome) = oneshot::channel();
    let mount = move || {
        let _ = told.send(mount());
    };
    // Without a thread, the request itself does it.
    if thread::Builder::new().spawn(mount).is_ok() {
        *EARLY.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
    }
}

/// Waits until they are mounted. Mounts made in the background count once: a second call comes after all were
/// unmounted.
pub async fn mounted() -> Outcome {
    let early = EARLY.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(early) = early
        && let Ok(outcome) = early.await
    {
        return outcome;
    }
    let mount = tokio::task::spawn_blocking(mount).await;
    mount.unwrap_or_else(|error| Err(failed("mounting the root")(io::Error::other(error))))
}

fn mount() -> Outcome {
    for device in [IMAGE_DEVICE, SCRATCH_DEVICE] {
        wait_for(Path::new(device))?;
    }
    for path in [IMAGE, SCRATCH, ROOT] {
        fs::create_dir_all(path).map_err(failed(path))?;
    }
    mount_at(
        Some(IMAGE_DEVICE),
        IMAGE,
        Some("squashfs"),
        MsFlags::MS_RDONLY,
        None::<&str>,
    )
    .map_err(failed("mounting the image"))?;
    mount_at(
        Some(SCRATCH_DEVICE),
        SCRATCH,
        Some("ext4"),
        MsFlags::MS_RELATIME,
        // The disk is new and holds zeros: the kernel need not write its inode tables, 16 MiB in each GiB.
        Some("noinit_itable"),
    )
    .map_err(failed("mounting the scratch disk"))?;
    let upper = PathBuf::from(format!("{SCRATCH}/upper"));
    let work = PathBuf::from(format!("{SCRATCH}/work"));
    for path in [&upper, &work] {
        fs::create_dir_all(path).map_err(failed("preparing the scratch disk"))?;
    }
    let layers = format!(
        "lowerdir={IMAGE},upperdir={},workdir={}",
        upper.display(),
        work.display()
    );
    mount_at(
        Some("overlay"),
        ROOT,
        Some("overlay"),
        MsFlags::MS_RELATIME,
        Some(layers.as_str()),
    )
    .map_err(failed("joining image and scratch disk"))?;
    steps::done("root mounted");
    Ok(())
}

fn wait_for(device: &Path) -> Outcome {
    let deadline = Instant::now() + DEVICE_DEADLINE;
    while !device.exists() {
        if Instant::now() >= deadline {
            let missing = io::Error::from_raw_os_error(libc::ENODEV);
            return Err(failed(format!("waiting for {}", device.display()))(missing));
        }
        thread::sleep(DEVICE_PAUSE);
    }
    Ok(())
}
