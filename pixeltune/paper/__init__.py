"""What a publication needs of a final: tables, references, figures, and a bundle that others can verify.

`write.write_paper` writes all of it into one folder. `bundle_check.verify_bundle` recomputes the numbers of a bundle,
from its weights and another copy of the images.

    works         the published works, their citation keys and BibTeX
    rows          our rows and the published rows, with the notes that each needs; as Parquet and JSON
    render        the same rows as LaTeX and Markdown, and the check of each printed number against the Parquet file
    figures       learning curves and samples as PDF and SVG
    bundle        weights, nats of each image, configurations, and a manifest with the digest of every file
    bundle_check  the checks of a bundle
    write         all of it
"""
