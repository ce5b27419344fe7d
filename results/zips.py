"""Entries of a zip as bytes, Zstandard among them, which `zipfile` knows from Python 3.14 on only."""

import io
import struct
import zipfile
import zlib

from weighin.results.outside import LARGEST, Unreadable

ZSTANDARD = 93
"""The compression method's number (APPNOTE.TXT 6.3.8, section 4.4.5)."""


def unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> bytes:
    """The content of an entry. Raises `Unreadable`, which names `where` it came from."""
    if info.file_size > LARGEST:
        raise Unreadable(f"{where} has {info.file_size:,} B; one entry may have {LARGEST:,}")
    try:
        if info.compress_type == ZSTANDARD:
            return _zstandard(archive, info, where)
        with archive.open(info) as file:
            return file.read(LARGEST)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, struct.error) as error:
        raise Unreadable(f"{where} cannot be unpacked ({str(error)[:120]})") from None


def _zstandard(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> bytes:
    try:
        import zstandard
    except ImportError:
        raise Unreadable(f"{where} is compressed with Zstandard: pip install 'weighin[inspect]'") from None
    if archive.fp is None:
        raise EOFError("the archive is closed")
    archive.fp.seek(info.header_offset)
    # the local header: 30 bytes, then the name and the extra field, whose lengths stand at its end
    header = archive.fp.read(30)
    if header[:4] != b"PK\x03\x04":
        raise Unreadable(f"{where} cannot be unpacked (it is not where the archive says)")
    name, extra = struct.unpack("<26x2H", header)
    archive.fp.seek(info.header_offset + 30 + name + extra)
    packed = archive.fp.read(info.compress_size)
    try:
        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(packed), read_across_frames=True) as stream:
            found = bytes(stream.read(info.file_size))
    except zstandard.ZstdError as error:
        raise Unreadable(f"{where} cannot be unpacked ({error})") from None
    if len(found) != info.file_size or zlib.crc32(found) != info.CRC:
        raise Unreadable(f"{where} cannot be unpacked (its checksum is another)")
    return found
