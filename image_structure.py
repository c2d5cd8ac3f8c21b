"""What the structure of an image file says, before a decoder reads it: scans, chunks, pages.

Decoders bound the pixels, but not the work: 88 kB of a JPEG can keep one busy for five minutes, and
counting the pages of a TIFF takes Pillow quadratic time. All functions here take one pass.
"""
import re
import struct

# Real files have up to 20 scans and some hundred segments or chunks.
MOST_PARTS = 10_000  # segments of a JPEG, pages of a TIFF
MOST_CHUNKS = 1000  # of a PNG, besides those of pixels
MOST_PIECES = 1_000_000  # blocks of a GIF, chunks of pixels of a PNG
MOST_SCANS = 100  # of a JPEG; each takes a pass over all pixels
USUAL_SCANS = 20  # which a picture of any size may have
MOST_VISITS = 1e9  # pixels times scans, about 10 s of one core
SLOW_BYTES = 2e6  # of formats that Pillow decodes in Python, one value at a time
SLOW_PIXELS = 4e6
SAVE_AGAIN = "; save the picture again in another program"

MARKER = re.compile(rb"\xff([\xc0-\xcf\xd9-\xfe])")  # without restarts, which divide the pixels
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
FRAME_HEADERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15: height and width
METADATA = {*range(0xE0, 0xF0), 0xFE}  # application segments and comments


def find_excess(data):
    """Return why reading a file would take far too long, "" if it would not."""
    return next((check(data) for start, check in CHECKS.items() if re.match(start, data)), "")


def jpeg_segments(data):
    """Yield (start, marker, end) of each segment of a JPEG, a scan's without its pixels.

    Between segments, libjpeg skips everything that is no marker, and so does this.
    """
    end = 2
    while (found := MARKER.search(data, end)) and found[1][0] != END_OF_IMAGE:
        end = found.end() + int.from_bytes(data[found.end():found.end() + 2], "big")
        yield found.start(), found[1][0], end


def without_metadata(data):
    """Return a JPEG without segments of metadata and without what stands before them.

    After the start of the first scan, only the segments are left out: bytes before them are pixels.
    """
    kept, place, scanning = [data[:2]], 2, False
    for start, marker, end in jpeg_segments(data):
        if marker in METADATA:
            kept.append(data[place:start] if scanning else b"")
            place = end
        scanning |= marker == START_OF_SCAN
    return b"".join([*kept, data[place:]])


def check_jpeg(data):
    """Return why a JPEG has too many scans or segments, or ""."""
    scans = pixels = 0
    for count, (start, marker, _) in enumerate(jpeg_segments(data), 1):
        if count > MOST_PARTS:
            return f"too many segments: more than {MOST_PARTS:,}{SAVE_AGAIN}"
        scans += marker == START_OF_SCAN
        if marker in FRAME_HEADERS:
            pixels = (int.from_bytes(data[start + 5:start + 7], "big")
                      * int.from_bytes(data[start + 7:start + 9], "big"))
    most = min(MOST_SCANS, max(USUAL_SCANS, MOST_VISITS // max(1, pixels)))
    return f"too many scans: {scans:,}{SAVE_AGAIN}" if scans > most else ""


def check_png(data):
    """Return why a PNG has too many chunks or colour profiles, or ""."""
    place, chunks, pieces, profiles = 8, 0, 0, 0
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        if kind in (b"IDAT", b"fdAT", b"fcTL"):
            pieces += 1
        else:
            chunks += 1
        profiles += kind == b"iCCP"  # each may take a megabyte once it is unpacked
        if chunks > MOST_CHUNKS or pieces > MOST_PIECES:
            return f"too many chunks: more than {max(chunks, pieces) - 1:,}{SAVE_AGAIN}"
        place += 12 + length
    return f"more than one colour profile{SAVE_AGAIN}" if profiles > 1 else ""


def check_gif(data):
    """Return why a GIF has too many blocks up to its second frame, or ""."""
    def after_colours(place, flags):
        return place + (3 << (flags & 7) + 1 if flags & 128 else 0)
    blocks = frames = 0
    place = after_colours(13, int.from_bytes(data[10:11], "big"))
    while place < len(data) and frames < 2 and data[place] in b"!,":
        if data[place] == ord(","):
            frames += 1
            flags = int.from_bytes(data[place + 9:place + 10], "big")
            place = after_colours(place + 10, flags) + 1
        else:
            place += 2
        while place < len(data) and data[place]:
            blocks += 1
            place += data[place] + 1
            if blocks > MOST_PIECES:
                return f"too many blocks: more than {MOST_PIECES:,}{SAVE_AGAIN}"
        place += 1
    return ""


def check_tiff(data):
    """Return why a TIFF has too many pages, or ""."""
    return (f"too many pages: more than {MOST_PARTS:,}{SAVE_AGAIN}"
            if count_pages(data) > MOST_PARTS else "")


def count_pages(data):
    """Return the number of pages of a TIFF, at most MOST_PARTS + 1.

    A page is a directory: its number of entries, the entries, and the place of the next directory.
    """
    order, big = "<" if data[:2] == b"II" else ">", b"\x2b" in data[2:4]
    header, number, entry, pointer = (8, "Q", 20, "Q") if big else (4, "H", 12, "I")
    places = set()
    try:
        place, = struct.unpack_from(order + pointer, data, header)
        while place and place not in places and len(places) <= MOST_PARTS:
            places.add(place)
            count, = struct.unpack_from(order + number, data, place)
            place, = struct.unpack_from(
                order + pointer, data, place + struct.calcsize(number) + count * entry)
    except (struct.error, OverflowError):  # cut off, or the place is outside the file
        pass
    return len(places)


def check_bmp(data):
    """Return why a run-length coded BMP is too large, or ""."""
    header, width, height, _, coding = struct.unpack_from("<IiiII", data.ljust(34, b"\0"), 14)
    coded = header >= 40 and coding in (1, 2)
    large = len(data) > SLOW_BYTES or abs(width * height) > SLOW_PIXELS
    return f"a large BMP of run lengths{SAVE_AGAIN}" if coded and large else ""


def check_text(data):
    """Return why a picture whose pixels are numbers in words is too large, or ""."""
    return f"a large picture in plain text{SAVE_AGAIN}" if len(data) > SLOW_BYTES else ""


CHECKS = {rb"\xff\xd8": check_jpeg, rb"\x89PNG": check_png, rb"GIF8": check_gif,
          rb"II|MM": check_tiff, rb"BM": check_bmp, rb"P[123]\s": check_text}
