"""What boto3 expects of an S3 store, one test per promise; each test has buckets of its own.

Called by `tests/s3_clients.rs` with ENDPOINT, ACCESS_KEY and SECRET_KEY in the environment; runs as well by
hand against any S3 store. Exits 1 if anything failed.
"""
import base64
import concurrent.futures
import hashlib
import io
import os
import random
import unittest
import urllib.error
import urllib.parse
import urllib.request
import uuid
import zlib
from datetime import datetime, timezone

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

ENDPOINT = os.environ["ENDPOINT"]
MIB = 1 << 20
PART = 5 * MIB
PLAIN = 'a b+c&d=e?f#g'
# Keys that some layer of some store mistakes for something else. The last is 1,024 bytes of UTF-8.
KEYS = [
    "../../etc/passwd", "a/../b", "a/./b", ".", "..", "x//y", "/leading", "trailing/", "_leading", "~tilde",
    PLAIN, "100%", "%41", "%2F", "a:b", "a;b,c", "<&\">'", "back\\slash", "dollar$star*(paren)[x]{y}|^`@!",
    "nä/é€/🦀", "e\u0301 is not é", "\u00a0nbsp\u200b", "line\nfeed", "tab\tend", "\u0001\u001f\u007f",
    " leading and trailing ", "é" * 512,
]


def client(**config):
    config = Config(signature_version="s3v4", s3={"addressing_style": "path"}, max_pool_connections=32,
                    retries={"total_max_attempts": 1}, **config)
    return boto3.client("s3", endpoint_url=ENDPOINT, region_name=os.environ.get("REGION", "us-east-1"),
                        aws_access_key_id=os.environ["ACCESS_KEY"],
                        aws_secret_access_key=os.environ["SECRET_KEY"], config=config)


S3 = client()


def noise(size, seed=1):
    return random.Random(seed).randbytes(size)


def b64(raw):
    return base64.b64encode(raw).decode()


def crc32(body):
    return b64(zlib.crc32(body).to_bytes(4, "big"))


def md5(body):
    return hashlib.md5(body).hexdigest()


class Case(unittest.TestCase):
    maxDiff = None

    def bucket(self, versioning=None):
        name = f"t-{uuid.uuid4().hex}"
        S3.create_bucket(Bucket=name)
        if versioning:
            self.versioning(name, versioning)
        return name

    def versioning(self, bucket, status):
        S3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})

    def fails(self, status, code, call, **arguments):
        with self.assertRaises(ClientError) as caught:
            call(**arguments)
        answer = caught.exception.response
        self.assertEqual((answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]), (status, code))
        self.assertTrue(answer["ResponseMetadata"].get("RequestId"), "an error has a request id")
        return answer

    def body(self, bucket, key, **more):
        return S3.get_object(Bucket=bucket, Key=key, **more)["Body"].read()


class Objects(Case):
    def test_bytes_come_back_with_their_etag_and_length(self):
        bucket = self.bucket()
        for size in (0, 1, 4096, MIB - 1, MIB, MIB + 1, 9 * MIB):
            body = noise(size)
            put = S3.put_object(Bucket=bucket, Key="k", Body=body)
            head = S3.head_object(Bucket=bucket, Key="k")
            self.assertEqual(put["ETag"], f'"{md5(body)}"')
            self.assertEqual((head["ETag"], head["ContentLength"]), (put["ETag"], size))
            self.assertTrue(self.body(bucket, "k") == body, f"{size} bytes")

    def test_keys_are_just_keys(self):
        bucket = self.bucket()
        for key in KEYS:
            with self.subTest(key=key):
                S3.put_object(Bucket=bucket, Key=key, Body=key.encode())
        listed = [o["Key"] for o in S3.list_objects_v2(Bucket=bucket).get("Contents", [])]
        self.assertEqual(listed, sorted(KEYS, key=lambda k: k.encode()))
        for key in KEYS:
            with self.subTest(key=key):
                self.assertEqual(self.body(bucket, key), key.encode())
                S3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": key})
                self.assertEqual(self.body(bucket, "copy"), key.encode())
                first = S3.list_objects_v2(Bucket=bucket, Prefix=key)["Contents"][0]["Key"]
                self.assertEqual(first, key)
                S3.delete_object(Bucket=bucket, Key=key)
                self.fails(404, "404", S3.head_object, Bucket=bucket, Key=key)
        self.assertEqual([o["Key"] for o in S3.list_objects(Bucket=bucket)["Contents"]], ["copy"])

    def test_metadata_and_content_headers_stay(self):
        bucket = self.bucket()
        said = {"ContentType": "text/x", "CacheControl": "no-store", "ContentDisposition": 'inline; filename="a"',
                "ContentEncoding": "gzip", "ContentLanguage": "de", "Metadata": {"Mixed-Case": "v 1", "b": ""}}
        S3.put_object(Bucket=bucket, Key="k", Body=b"x", **said)
        head = S3.head_object(Bucket=bucket, Key="k")
        said["Metadata"] = {"mixed-case": "v 1", "b": ""}
        self.assertEqual({k: head[k] for k in said}, said)
        self.fails(400, "MetadataTooLarge", S3.put_object, Bucket=bucket, Key="k", Metadata={"a": "v" * 2048})

    def test_ranges(self):
        bucket, body = self.bucket(), noise(3 * MIB)
        S3.put_object(Bucket=bucket, Key="k", Body=body)
        size = len(body)
        for asked, start, end in [("0-0", 0, 1), ("5-", 5, size), ("-7", size - 7, size), ("0-99999999", 0, size),
                                  (f"{MIB - 1}-{MIB}", MIB - 1, MIB + 1)]:
            got = S3.get_object(Bucket=bucket, Key="k", Range=f"bytes={asked}")
            self.assertEqual(got["ContentRange"], f"bytes {start}-{end - 1}/{size}")
            self.assertEqual(got["ResponseMetadata"]["HTTPStatusCode"], 206)
            self.assertTrue(got["Body"].read() == body[start:end], asked)
        self.fails(416, "InvalidRange", S3.get_object, Bucket=bucket, Key="k", Range=f"bytes={size}-")

    def test_conditional_reads_and_writes(self):
        bucket = self.bucket()
        etag = S3.put_object(Bucket=bucket, Key="k", Body=b"one", IfNoneMatch="*")["ETag"]
        self.fails(412, "PreconditionFailed", S3.put_object, Bucket=bucket, Key="k", Body=b"two", IfNoneMatch="*")
        self.fails(412, "PreconditionFailed", S3.put_object, Bucket=bucket, Key="k", Body=b"two", IfMatch='"x"')
        self.fails(404, "NoSuchKey", S3.put_object, Bucket=bucket, Key="absent", Body=b"two", IfMatch=etag)
        self.fails(304, "304", S3.get_object, Bucket=bucket, Key="k", IfNoneMatch=etag)
        self.fails(412, "PreconditionFailed", S3.get_object, Bucket=bucket, Key="k", IfMatch='"x"')
        modified = S3.get_object(Bucket=bucket, Key="k", IfMatch=etag)["LastModified"]
        self.fails(304, "304", S3.get_object, Bucket=bucket, Key="k", IfModifiedSince=modified)
        S3.put_object(Bucket=bucket, Key="k", Body=b"two", IfMatch=etag)
        self.assertEqual(self.body(bucket, "k"), b"two")

    def test_copies_take_along_or_replace(self):
        bucket, other = self.bucket("Enabled"), self.bucket()
        old = S3.put_object(Bucket=bucket, Key="k", Body=b"old", Metadata={"m": "1"}, Tagging="t=1",
                            ContentType="text/x")["VersionId"]
        S3.put_object(Bucket=bucket, Key="k", Body=b"new")
        source = {"Bucket": bucket, "Key": "k", "VersionId": old}
        copied = S3.copy_object(Bucket=other, Key="to", CopySource=source)
        self.assertEqual(copied["CopySourceVersionId"], old)
        self.assertEqual(copied["CopyObjectResult"]["ETag"], f'"{md5(b"old")}"')
        head = S3.head_object(Bucket=other, Key="to")
        self.assertEqual((head["Metadata"], head["ContentType"]), ({"m": "1"}, "text/x"))
        self.assertEqual(S3.get_object_tagging(Bucket=other, Key="to")["TagSet"], [{"Key": "t", "Value": "1"}])
        S3.copy_object(Bucket=other, Key="to", CopySource={"Bucket": other, "Key": "to"},
                       MetadataDirective="REPLACE", Metadata={"m": "2"}, TaggingDirective="REPLACE", Tagging="u=2")
        head = S3.head_object(Bucket=other, Key="to")
        self.assertEqual((head["Metadata"], head["ContentType"]), ({"m": "2"}, "binary/octet-stream"))
        self.assertEqual(S3.get_object_tagging(Bucket=other, Key="to")["TagSet"], [{"Key": "u", "Value": "2"}])
        self.assertEqual(self.body(other, "to"), b"old")
        itself = {"Bucket": other, "Key": "to"}
        self.fails(400, "InvalidRequest", S3.copy_object, Bucket=other, Key="to", CopySource=itself)
        self.fails(404, "NoSuchKey", S3.copy_object, Bucket=other, Key="x", CopySource={"Bucket": other, "Key": "-"})

    def test_tags(self):
        bucket = self.bucket()
        S3.put_object(Bucket=bucket, Key="k", Body=b"x", Tagging="a=1&b=x%20y")
        self.assertEqual(S3.get_object(Bucket=bucket, Key="k")["TagCount"], 2)
        wanted = [{"Key": f"k{i}", "Value": "ü +&="} for i in range(10)]
        S3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": wanted})
        got = S3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"]
        self.assertEqual(sorted(got, key=lambda t: t["Key"]), wanted)
        wanted.append({"Key": "k10", "Value": ""})
        self.fails(400, "BadRequest", S3.put_object_tagging, Bucket=bucket, Key="k", Tagging={"TagSet": wanted})
        S3.delete_object_tagging(Bucket=bucket, Key="k")
        self.assertEqual(S3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"], [])
        S3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": wanted})
        self.assertEqual(len(S3.get_bucket_tagging(Bucket=bucket)["TagSet"]), 11)
        S3.delete_bucket_tagging(Bucket=bucket)
        self.fails(404, "NoSuchTagSet", S3.get_bucket_tagging, Bucket=bucket)

    def test_a_wrong_digest_leaves_nothing(self):
        bucket = self.bucket()
        wrong = b64(hashlib.md5(b"other").digest())
        self.fails(400, "BadDigest", S3.put_object, Bucket=bucket, Key="k", Body=b"x", ContentMD5=wrong)
        self.fails(400, "BadDigest", S3.put_object, Bucket=bucket, Key="k", Body=b"x", ChecksumCRC32=crc32(b"y"))
        self.fails(404, "NoSuchKey", S3.get_object, Bucket=bucket, Key="k")

    def test_checksums_are_kept_and_shown(self):
        bucket, body = self.bucket(), b"hello"
        sums = {"CRC32": crc32(body), "CRC32C": "mnG7TA==", "CRC64NVME": "M3eFcAZSQlc=",
                "SHA1": b64(hashlib.sha1(body).digest()), "SHA256": b64(hashlib.sha256(body).digest())}
        for algorithm, value in sums.items():
            field = f"Checksum{algorithm}"
            put = S3.put_object(Bucket=bucket, Key="k", Body=body, **{field: value})
            self.assertEqual((put[field], put["ChecksumType"]), (value, "FULL_OBJECT"))
            head = S3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
            self.assertEqual((head[field], head["ChecksumType"]), (value, "FULL_OBJECT"))
            asked = S3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["Checksum", "ObjectSize"])
            self.assertEqual((asked["Checksum"][field], asked["ObjectSize"]), (value, 5))


class Presigned(Case):
    def http(self, method, url, body=None):
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, method=method), timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def test_urls_hold_for_what_they_say(self):
        bucket, key = self.bucket(), "dir/" + PLAIN
        sign = lambda verb, **more: S3.generate_presigned_url(verb, Params={"Bucket": bucket, "Key": key, **more})
        self.assertEqual(self.http("PUT", sign("put_object"), b"body")[0], 200)
        self.assertEqual(self.http("GET", sign("get_object")), (200, b"body"))
        self.assertEqual(self.http("HEAD", sign("head_object")), (200, b""))
        status, answer = self.http("GET", sign("get_object").replace("dir/", "dis/"))
        self.assertEqual((status, b"<Code>SignatureDoesNotMatch</Code>" in answer), (403, True))
        self.assertEqual(self.http("PUT", sign("get_object"), b"other")[0], 403)
        self.assertEqual(self.http("DELETE", sign("delete_object"))[0], 204)
        self.fails(404, "NoSuchKey", S3.get_object, Bucket=bucket, Key=key)


class Versions(Case):
    def test_markers_and_versions_are_listed_in_pages(self):
        bucket = self.bucket("Enabled")
        wanted = []
        for key in ("a", "b/1", "b/2"):
            for n in range(3):
                wanted.append((key, S3.put_object(Bucket=bucket, Key=key, Body=str(n).encode())["VersionId"]))
        marker = S3.delete_object(Bucket=bucket, Key="a")
        self.assertTrue(marker["DeleteMarker"])
        wanted.append(("a", marker["VersionId"]))
        self.fails(404, "NoSuchKey", S3.get_object, Bucket=bucket, Key="a")
        self.fails(405, "MethodNotAllowed", S3.get_object, Bucket=bucket, Key="a", VersionId=marker["VersionId"])
        for size in (1, 2, 1000):
            pages = S3.get_paginator("list_object_versions").paginate(
                Bucket=bucket, PaginationConfig={"PageSize": size})
            rows = [(v["Key"], v["VersionId"]) for p in pages for v in p.get("Versions", []) + p.get("DeleteMarkers", [])]
            self.assertEqual(sorted(rows), sorted(wanted), f"pages of {size}")
        page = S3.list_object_versions(Bucket=bucket, Delimiter="/")
        self.assertEqual([p["Prefix"] for p in page["CommonPrefixes"]], ["b/"])
        self.assertEqual([v["IsLatest"] for v in page["Versions"]], [False] * 3)
        S3.delete_object(Bucket=bucket, Key="a", VersionId=marker["VersionId"])
        self.assertEqual(self.body(bucket, "a"), b"2")
        self.assertEqual(self.body(bucket, "a", VersionId=wanted[0][1]), b"0")

    def test_suspended_buckets_write_null(self):
        bucket = self.bucket("Enabled")
        kept = S3.put_object(Bucket=bucket, Key="k", Body=b"kept")["VersionId"]
        self.versioning(bucket, "Suspended")
        for body in (b"one", b"two"):
            self.assertEqual(S3.put_object(Bucket=bucket, Key="k", Body=body)["VersionId"], "null")
        ids = [v["VersionId"] for v in S3.list_object_versions(Bucket=bucket)["Versions"]]
        self.assertEqual(ids, ["null", kept])
        marker = S3.delete_object(Bucket=bucket, Key="k")
        self.assertEqual((marker["VersionId"], marker["DeleteMarker"]), ("null", True))
        listed = S3.list_object_versions(Bucket=bucket)
        self.assertEqual([v["VersionId"] for v in listed["Versions"]], [kept])
        self.assertEqual([v["VersionId"] for v in listed["DeleteMarkers"]], ["null"])

    def test_many_deletes_in_one_request(self):
        bucket = self.bucket("Enabled")
        keys = [k for k in KEYS if k.isprintable()]
        ids = {k: S3.put_object(Bucket=bucket, Key=k, Body=b"x")["VersionId"] for k in keys}
        done = S3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": k} for k in keys]})
        self.assertEqual(sorted(d["Key"] for d in done["Deleted"]), sorted(keys))
        self.assertTrue(all(d["DeleteMarker"] for d in done["Deleted"]))
        everything = [{"Key": k, "VersionId": v} for k, v in ids.items()]
        everything += [{"Key": d["Key"], "VersionId": d["DeleteMarkerVersionId"]} for d in done["Deleted"]]
        done = S3.delete_objects(Bucket=bucket, Delete={"Objects": everything, "Quiet": True})
        self.assertEqual((done.get("Deleted", []), done.get("Errors", [])), ([], []))
        S3.delete_bucket(Bucket=bucket)


class Lists(Case):
    def test_1100_keys_in_pages(self):
        bucket = self.bucket()
        keys = [f"dir{i % 3}/{PLAIN} é {i:04}" for i in range(1100)]
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda k: S3.put_object(Bucket=bucket, Key=k, Body=b"x"), keys))
        wanted = sorted(keys, key=lambda k: k.encode())
        # boto3 asks for encoding-type=url by itself and decodes; asked for by hand it hands on what came.
        read = {"list_objects": ({}, lambda k: k), "list_objects_v2": ({"EncodingType": "url"}, urllib.parse.unquote)}
        for verb, (more, decode) in read.items():
            for size in (1000, 173):
                pages = list(S3.get_paginator(verb).paginate(Bucket=bucket, PaginationConfig={"PageSize": size}, **more))
                rows = [decode(o["Key"]) for p in pages for o in p["Contents"]]
                self.assertTrue(rows == wanted, f"{verb} in pages of {size}")
                self.assertEqual(len(pages), -(-1100 // size))
        top = S3.list_objects_v2(Bucket=bucket, Delimiter="/")
        self.assertEqual([p["Prefix"] for p in top["CommonPrefixes"]], ["dir0/", "dir1/", "dir2/"])
        self.assertEqual((top.get("Contents", []), top["KeyCount"]), ([], 3))
        after = S3.list_objects_v2(Bucket=bucket, StartAfter=wanted[-2])
        self.assertEqual([o["Key"] for o in after["Contents"]], wanted[-1:])
        for at in range(0, 1100, 1000):
            S3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": k} for k in keys[at:at + 1000]]})
        S3.delete_bucket(Bucket=bucket)

    def test_buckets(self):
        bucket = self.bucket()
        self.assertIn(bucket, [b["Name"] for b in S3.list_buckets()["Buckets"]])
        S3.head_bucket(Bucket=bucket)
        self.assertEqual(S3.get_bucket_location(Bucket=bucket).get("LocationConstraint"), None)
        self.assertEqual(S3.get_bucket_versioning(Bucket=bucket).get("Status"), None)
        S3.put_object(Bucket=bucket, Key="k", Body=b"x")
        self.fails(409, "BucketNotEmpty", S3.delete_bucket, Bucket=bucket)
        S3.delete_object(Bucket=bucket, Key="k")
        S3.delete_bucket(Bucket=bucket)
        self.fails(404, "NoSuchBucket", S3.list_objects_v2, Bucket=bucket)
        self.fails(404, "404", S3.head_bucket, Bucket=bucket)


class Uploads(Case):
    def begin(self, bucket, **more):
        return S3.create_multipart_upload(Bucket=bucket, Key="k", **more)["UploadId"]

    def part(self, bucket, upload, number, body, **more):
        done = S3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=number, Body=body, **more)
        kept = {k: v for k, v in done.items() if k == "ETag" or k.startswith("Checksum") and k != "ChecksumType"}
        return {"PartNumber": number, **kept}

    def complete(self, bucket, upload, parts, **more):
        return S3.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload,
                                            MultipartUpload={"Parts": parts}, **more)

    def test_64_mib_through_the_transfer_manager(self):
        bucket, body = self.bucket(), noise(64 * MIB)
        S3.upload_fileobj(io.BytesIO(body), bucket, "k", ExtraArgs={"Metadata": {"m": "1"}},
                          Config=TransferConfig(multipart_chunksize=8 * MIB))
        head = S3.head_object(Bucket=bucket, Key="k")
        parts = b"".join(hashlib.md5(body[i:i + 8 * MIB]).digest() for i in range(0, len(body), 8 * MIB))
        self.assertEqual(head["ETag"], f'"{md5(parts)}-8"')
        self.assertEqual((head["ContentLength"], head["Metadata"]), (64 * MIB, {"m": "1"}))
        into = io.BytesIO()
        S3.download_fileobj(bucket, "k", into)
        self.assertTrue(into.getvalue() == body, "64 MiB come back")
        S3.copy({"Bucket": bucket, "Key": "k"}, bucket, "copy", Config=TransferConfig(
            multipart_threshold=8 * MIB, multipart_chunksize=32 * MIB))
        self.assertEqual(S3.head_object(Bucket=bucket, Key="copy")["ETag"][-3:], '-2"')

    def test_checksums_of_the_whole_and_of_the_parts(self):
        bucket, bodies = self.bucket(), [noise(PART, 1), noise(100, 2)]
        for algorithm, kind in [("CRC32", "FULL_OBJECT"), ("CRC32C", "FULL_OBJECT"), ("CRC64NVME", "FULL_OBJECT"),
                                ("CRC32", "COMPOSITE"), ("SHA1", "COMPOSITE"), ("SHA256", "COMPOSITE")]:
            with self.subTest(algorithm=algorithm, kind=kind):
                if algorithm in ("CRC32C", "CRC64NVME") and not has_crt():
                    continue  # boto3 computes these two only with its native library
                field = f"Checksum{algorithm}"
                upload = self.begin(bucket, ChecksumAlgorithm=algorithm, ChecksumType=kind)
                parts = [self.part(bucket, upload, n, b, ChecksumAlgorithm=algorithm) for n, b in enumerate(bodies, 1)]
                self.assertTrue(all(field in p for p in parts), parts)
                done = self.complete(bucket, upload, parts, ChecksumType=kind)
                self.assertEqual(done["ChecksumType"], kind)
                if kind == "COMPOSITE":
                    joined = b"".join(base64.b64decode(p[field]) for p in parts)
                    of = {"CRC32": lambda b: zlib.crc32(b).to_bytes(4, "big"), "SHA1": lambda b: hashlib.sha1(b).digest(),
                          "SHA256": lambda b: hashlib.sha256(b).digest()}[algorithm]
                    self.assertEqual(done[field], f"{b64(of(joined))}-2")
                elif algorithm == "CRC32":
                    self.assertEqual(done[field], crc32(b"".join(bodies)))
                head = S3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
                self.assertEqual((head[field], head["ChecksumType"]), (done[field], kind))
                asked = S3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["Checksum", "ObjectParts"])
                self.assertEqual((asked["Checksum"][field], asked["Checksum"]["ChecksumType"]), (done[field], kind))
                self.assertEqual(asked["ObjectParts"]["TotalPartsCount"], 2)
                self.assertTrue(self.body(bucket, "k") == b"".join(bodies))

    def test_the_whole_is_held_to_the_checksum_that_was_said(self):
        bucket, bodies = self.bucket(), [noise(PART, 1), noise(100, 2)]
        upload = self.begin(bucket, ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT")
        parts = [self.part(bucket, upload, n, b, ChecksumAlgorithm="CRC32") for n, b in enumerate(bodies, 1)]
        size = sum(map(len, bodies))
        self.fails(400, "BadDigest", self.complete, bucket=bucket, upload=upload, parts=parts,
                   ChecksumCRC32=crc32(b"other"), ChecksumType="FULL_OBJECT")
        self.fails(404, "NoSuchKey", S3.get_object, Bucket=bucket, Key="k")
        self.complete(bucket, upload, parts, ChecksumCRC32=crc32(b"".join(bodies)), ChecksumType="FULL_OBJECT",
                      MpuObjectSize=size)
        self.assertEqual(S3.head_object(Bucket=bucket, Key="k")["ContentLength"], size)

    def test_lists_abort_and_copied_parts(self):
        bucket, source = self.bucket(), noise(PART + 10)
        S3.put_object(Bucket=bucket, Key="from", Body=source)
        upload, other = self.begin(bucket), self.begin(bucket)
        listed = S3.list_multipart_uploads(Bucket=bucket)["Uploads"]
        self.assertEqual({u["UploadId"] for u in listed}, {upload, other})
        parts = []
        for number, span in ((1, f"0-{PART - 1}"), (2, f"{PART}-{PART + 9}")):
            done = S3.upload_part_copy(Bucket=bucket, Key="k", UploadId=upload, PartNumber=number,
                                       CopySource={"Bucket": bucket, "Key": "from"}, CopySourceRange=f"bytes={span}")
            parts.append({"PartNumber": number, "ETag": done["CopyPartResult"]["ETag"]})
        pages = S3.get_paginator("list_parts").paginate(
            Bucket=bucket, Key="k", UploadId=upload, PaginationConfig={"PageSize": 1})
        self.assertEqual([[p["Size"] for p in page["Parts"]] for page in pages], [[PART], [10]])
        swapped = [{**parts[0], "ETag": parts[1]["ETag"]}]
        self.fails(400, "InvalidPart", self.complete, bucket=bucket, upload=upload, parts=swapped)
        self.fails(400, "InvalidPartOrder", self.complete, bucket=bucket, upload=upload, parts=parts[::-1])
        first, again = (self.complete(bucket, upload, parts)["ETag"] for _ in range(2))
        self.assertEqual(first, again, "Complete may be asked twice")
        self.assertTrue(self.body(bucket, "k") == source)
        self.assertTrue(self.body(bucket, "k", PartNumber=2) == source[PART:])
        S3.abort_multipart_upload(Bucket=bucket, Key="k", UploadId=other)
        self.assertEqual(S3.list_multipart_uploads(Bucket=bucket).get("Uploads", []), [])
        self.fails(404, "NoSuchUpload", self.part, bucket=bucket, upload=other, number=1, body=b"x")


class ObjectLock(Case):
    FAR = datetime(2120, 1, 2, 3, 4, 5, tzinfo=timezone.utc)

    def locked(self):
        name = f"t-{uuid.uuid4().hex}"
        S3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
        return name

    def test_a_bucket_says_what_versions_are_born_with(self):
        bucket = self.bucket()
        self.fails(404, "ObjectLockConfigurationNotFoundError", S3.get_object_lock_configuration, Bucket=bucket)
        on = {"ObjectLockEnabled": "Enabled"}
        self.fails(409, "InvalidBucketState", S3.put_object_lock_configuration, Bucket=bucket,
                   ObjectLockConfiguration=on)
        self.versioning(bucket, "Enabled")
        for rule in ({"Mode": "GOVERNANCE", "Days": 2}, {"Mode": "COMPLIANCE", "Years": 1}):
            wanted = {**on, "Rule": {"DefaultRetention": rule}}
            S3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=wanted)
            got = S3.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"]
            self.assertEqual(got, wanted)
            S3.put_object(Bucket=bucket, Key="k", Body=b"x")
            self.assertEqual(S3.head_object(Bucket=bucket, Key="k")["ObjectLockMode"], rule["Mode"])
        self.fails(409, "InvalidBucketState", S3.put_bucket_versioning, Bucket=bucket,
                   VersioningConfiguration={"Status": "Suspended"})

    def test_retention_is_kept_shown_and_bypassed(self):
        bucket = self.locked()
        put = S3.put_object(Bucket=bucket, Key="k", Body=b"x", ObjectLockMode="GOVERNANCE",
                            ObjectLockRetainUntilDate=self.FAR)["VersionId"]
        head = S3.head_object(Bucket=bucket, Key="k")
        self.assertEqual((head["ObjectLockMode"], head["ObjectLockRetainUntilDate"]), ("GOVERNANCE", self.FAR))
        one = {"Bucket": bucket, "Key": "k", "VersionId": put}
        self.assertEqual(S3.get_object_retention(**one)["Retention"],
                         {"Mode": "GOVERNANCE", "RetainUntilDate": self.FAR})
        self.fails(403, "AccessDenied", S3.delete_object, **one)
        self.fails(403, "AccessDenied", S3.put_object_retention, **one, Retention={})
        S3.put_object_retention(**one, Retention={}, BypassGovernanceRetention=True)
        self.fails(404, "NoSuchObjectLockConfiguration", S3.get_object_retention, **one)
        S3.put_object_retention(**one, Retention={"Mode": "GOVERNANCE", "RetainUntilDate": self.FAR})
        S3.delete_object(**one, BypassGovernanceRetention=True)
        self.fails(404, "NoSuchKey", S3.get_object, Bucket=bucket, Key="k")

    def test_a_legal_hold_is_set_and_lifted(self):
        bucket = self.locked()
        upload = S3.create_multipart_upload(Bucket=bucket, Key="k", ObjectLockLegalHoldStatus="ON")["UploadId"]
        etag = S3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"x")["ETag"]
        put = S3.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={
            "Parts": [{"PartNumber": 1, "ETag": etag}]})["VersionId"]
        one = {"Bucket": bucket, "Key": "k", "VersionId": put}
        self.assertEqual(S3.get_object_legal_hold(**one)["LegalHold"]["Status"], "ON")
        self.fails(403, "AccessDenied", S3.delete_object, **one, BypassGovernanceRetention=True)
        S3.put_object_legal_hold(**one, LegalHold={"Status": "OFF"})
        self.assertEqual(S3.get_object_legal_hold(**one)["LegalHold"]["Status"], "OFF")
        S3.delete_object(**one)


class Limits(Case):
    def test_what_is_too_large_is_refused_by_name(self):
        bucket = self.bucket()
        self.fails(400, "KeyTooLongError", S3.put_object, Bucket=bucket, Key="k" * 1025, Body=b"x")
        tags = "&".join(f"k{i}=v" for i in range(11))
        self.fails(400, "BadRequest", S3.put_object, Bucket=bucket, Key="k", Body=b"x", Tagging=tags)
        many = {"Objects": [{"Key": str(i)} for i in range(1001)]}
        self.fails(400, "MalformedXML", S3.delete_objects, Bucket=bucket, Delete=many)
        self.fails(400, "InvalidArgument", S3.upload_part, Bucket=bucket, Key="k", UploadId="0" * 32,
                   PartNumber=10001, Body=b"x")


def has_crt():
    try:
        import awscrt  # noqa: F401
        return True
    except ImportError:
        return False


if __name__ == "__main__":
    unittest.main(verbosity=1)
