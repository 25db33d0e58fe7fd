"""What goes with a bundle for those who audit it: what it contains, and how it was made.

Sources: CycloneDX 1.6 JSON (ECMA-424); in-toto Statement v1; SLSA provenance v1. No time of day and no random number: the
same inputs give the same bytes.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime

from quarkctl import __version__
from quarkctl.build.bundle.recipe import Recipe
from quarkctl.formats import bundle, canonical
from quarkctl.formats.bundle import Component, Manifest

BUILD_TYPE = "urn:quarkctl:bundle:1"
BUILDER = "urn:quarkctl:build-bundle"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, BUILD_TYPE)


def sbom(recipe: Recipe, components: tuple[Component, ...], hashes: Mapping[str, bytes], epoch: int) -> bytes:
    """Software bill of materials, CycloneDX. ``hashes``: SHA-256 by member name. Its length depends on names only."""
    top = f"{recipe.product}-{recipe.version}"
    parts = [
        {
            "type": "firmware", "bom-ref": f"{c.chip}/{c.target}/{k}", "name": f"{recipe.product} {c.chip} {c.target}",
            "version": str(recipe.chips[c.chip].version),
            "hashes": [{"alg": "SHA-256", "content": hashes[e.member].hex()}],
        }
        for c in components
        for k, e in enumerate(c.extents)
    ]  # fmt: skip
    inside = [
        {
            "type": "library", "bom-ref": f"contains/{k}", "name": i.name, "version": i.version,
            **({"licenses": [{"expression": i.license}]} if i.license else {}),
            **({"purl": i.purl} if i.purl else {}),
        }
        for k, i in enumerate(recipe.contains)
    ]  # fmt: skip
    all_hashes = b"".join(hashes[e.member] for c in components for e in c.extents)
    serial = uuid.uuid5(_NAMESPACE, f"{top} {hashlib.sha256(all_hashes).hexdigest()}")
    return canonical.build(
        {
            "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json", "bomFormat": "CycloneDX", "specVersion": "1.6",
            "serialNumber": serial.urn, "version": 1,
            "metadata": {
                "timestamp": datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "tools": {"components": [{"type": "application", "name": "quarkctl", "version": __version__}]},
                "component": {"type": "firmware", "bom-ref": top, "name": recipe.product, "version": recipe.version},
            },
            "components": parts + inside,
            "dependencies": [{"ref": top, "dependsOn": [str(p["bom-ref"]) for p in parts + inside]}],
        }
    )  # fmt: skip


def provenance(recipe: Recipe, manifest: Manifest, manifest_bytes: bytes) -> bytes:
    """How the bundle was made: an in-toto statement about the manifest and every image."""
    digest = hashlib.sha256(manifest_bytes).hexdigest()
    images = {e.member for c in manifest.components for e in c.extents}
    return canonical.build(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [
                {"name": bundle.MANIFEST_NAME, "digest": {"sha256": digest}},
                *({"name": m.name, "digest": {"sha256": m.sha256.hex()}} for m in manifest.members if m.name in images),
            ],
            "predicateType": "https://slsa.dev/provenance/v1",
            "predicate": {
                "buildDefinition": {
                    "buildType": BUILD_TYPE,
                    "externalParameters": {"product": recipe.product, "version": recipe.version},
                    "resolvedDependencies": [
                        {"name": "recipe", "digest": {"sha256": hashlib.sha256(recipe.source).hexdigest()}}
                    ],
                },
                "runDetails": {"builder": {"id": BUILDER, "version": {"quarkctl": __version__}}},
            },
        }
    )  # fmt: skip
