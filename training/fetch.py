"""Download the packages of packages.toml with the registries' ordinary clients into work/raw/.

Resumable: a package whose folder exists is skipped; one that cannot be had leaves a mark.

    python -m training.fetch [--only python,rust] [--jobs 4]
"""

import argparse
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
RAW = HERE / "work" / "raw"


def wanted() -> dict[str, dict[str, list[str]]]:
    """Language -> {"train": names, "held_out": names}, as packages.toml lists them."""
    table = tomllib.loads((HERE / "packages.toml").read_text())
    return {
        lang: {split: list(dict.fromkeys(names.split())) for split, names in splits.items()}
        for lang, splits in table.items()
    }


def folder_of(lang: str, name: str) -> Path:
    return RAW / lang / name.replace("/", "__")


def _run(*args: str, cwd: Path) -> None:
    subprocess.run(
        args, cwd=cwd, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=300
    )


def _python(name: str, dest: Path) -> None:
    if name == "stdlib":
        ignore = shutil.ignore_patterns(
            "site-packages", "__pycache__", "idlelib", "lib2to3", "*.so"
        )
        shutil.copytree(sysconfig.get_path("stdlib"), dest / "lib", ignore=ignore)
        return
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
    _run(*pip, "--disable-pip-version-check", "-d", ".", name, cwd=dest)
    for wheel in dest.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            keep = [n for n in archive.namelist() if n.endswith((".py", ".pyi", "METADATA"))]
            archive.extractall(dest, keep)
        wheel.unlink()


def _stage(*args: str) -> Path:
    """One apt-get call downloads everything into a folder: its start alone costs seconds."""
    stage = RAW / "staging"
    stage.mkdir(parents=True, exist_ok=True)
    subprocess.run(["apt-get", *args], cwd=stage, check=False, stdout=subprocess.DEVNULL)
    return stage


def _available(*options: str) -> set[str]:
    listing = subprocess.run(
        ["apt-cache", *options, "pkgnames"], check=True, capture_output=True, text=True
    )
    return set(listing.stdout.split())


def fetch_debian_binaries(lang: str, names: list[str]) -> list[str]:
    """Download and unpack -dev packages; returns the names that Debian does not have."""
    package_of = {n: f"librust-{n}-dev" if lang == "rust" else f"{n}-dev" for n in names}
    known = _available()
    todo = [p for n, p in package_of.items() if p in known and not folder_of(lang, n).exists()]
    stage = _stage("-qq", "download", *todo) if todo else RAW
    for name, package in package_of.items():
        for deb in stage.glob(f"{package}_*.deb"):
            dest = folder_of(lang, name)
            dest.mkdir(parents=True, exist_ok=True)
            _run("dpkg-deb", "-x", str(deb), str(dest), cwd=dest)
            (dest / "VERSION").write_text(deb.name.split("_")[1].replace("%3a", ":"))
            deb.unlink()
    return [n for n, p in package_of.items() if p not in known]


def fetch_debian_sources(names: list[str]) -> list[str]:
    """Download and unpack C source packages; returns the names that could not be had."""
    prepare_source_apt()
    todo = [n for n in names if not folder_of("c", n).exists()]
    options = _source_options()
    shown = subprocess.run(
        ["apt-cache", *options, "showsrc", *todo], check=False, capture_output=True, text=True
    )
    lines = shown.stdout.splitlines()
    known = {line.split(": ")[1] for line in lines if line.startswith("Package: ")} & set(todo)
    stage = _stage(*options, "-qq", "source", "--download-only", *sorted(known)) if known else RAW
    for name in sorted(known):
        for dsc in sorted(stage.glob(f"{name}_*.dsc"))[-1:]:
            dest = folder_of("c", name)
            dest.mkdir(parents=True, exist_ok=True)
            unpack = ["dpkg-source", "--no-check", "-x", str(dsc), str(dest / "source")]
            subprocess.run(unpack, check=False, capture_output=True)
            (dest / "VERSION").write_text(dsc.stem.split("_")[1])
    return [n for n in names if not folder_of("c", n).exists()]


def _source_options() -> list[str]:
    """A private apt configuration with deb-src lines, so that the host's own is left alone."""
    apt = HERE / "work" / "apt"
    options = [
        f"Dir::Etc::sourceparts={apt}/etc",
        "Dir::Etc::sourcelist=/dev/null",
        f"Dir::State={apt}/state",
        f"Dir::Cache={apt}/cache",
        "APT::Sandbox::User=root",
    ]
    return [part for option in options for part in ("-o", option)]


def prepare_source_apt() -> None:
    apt = HERE / "work" / "apt"
    for sub in ("etc", "state/lists/partial", "cache/archives/partial"):
        (apt / sub).mkdir(parents=True, exist_ok=True)
    host = Path("/etc/apt/sources.list.d/debian.sources").read_text()
    (apt / "etc" / "debian.sources").write_text(host.replace("Types: deb\n", "Types: deb-src\n"))
    _run("apt-get", *_source_options(), "update", cwd=apt)


def _npm(name: str, dest: Path) -> None:
    _run("npm", "pack", "--silent", name, cwd=dest)
    for tgz in dest.glob("*.tgz"):
        with tarfile.open(tgz) as archive:
            archive.extractall(dest, filter="data")
        tgz.unlink()


def fetch(lang: str, name: str) -> str:
    """Fetch one package; returns "ok", "kept" or "missing"."""
    dest = folder_of(lang, name)
    missing = dest.with_name(dest.name + ".missing")
    if missing.exists():
        return "missing"
    if dest.exists():
        return "kept"
    partial = dest.with_name(dest.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        match lang:
            case "python":
                _python(name, partial)
            case _:
                _npm(name, partial)
    except (subprocess.SubprocessError, OSError, zipfile.BadZipFile, tarfile.TarError):
        shutil.rmtree(partial, ignore_errors=True)
        missing.touch()
        return "missing"
    partial.rename(dest)
    return "ok"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="python,rust,c,typescript,go")
    parser.add_argument("--jobs", type=int, default=4)
    args = parser.parse_args()
    table = wanted()
    for lang in args.only.split(","):
        names = [name for split in ("held_out", "train") for name in table[lang][split]]
        if lang in ("rust", "go"):
            missing = fetch_debian_binaries(lang, names)
        elif lang == "c":
            missing = fetch_debian_sources(names)
        else:
            with ThreadPoolExecutor(args.jobs) as pool:
                results = list(pool.map(lambda name, lang=lang: fetch(lang, name), names))  # type: ignore[misc]
            missing = [n for n, r in zip(names, results, strict=True) if r == "missing"]
        print(
            f"{lang}: {len(names) - len(missing)} fetched, missing: {' '.join(missing)}", flush=True
        )


if __name__ == "__main__":
    main()
