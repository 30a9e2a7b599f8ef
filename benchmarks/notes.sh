#!/bin/sh
# The flow that mkiso replaced, as its notes have it; only the QueryRetrieveLevel is added, without which nothing moves.
# In the environment: PACS_PORT, AE and PORT (the receiver), ACCESSION, WORK. Prints the number of files received.
set -u
dicomdir=$(mktemp -d "$WORK/dicomdir_XXXXXX")
mkdir "$dicomdir/DICOMDIR"

/usr/bin/storescp "$PORT" -aet "$AE" -od "$dicomdir/DICOMDIR" +xa > "$dicomdir.log" 2>&1 &
STORESCP_PID=$!
sleep 1
/usr/bin/movescu -aet "$AE" -aec ABPACS -aem "$AE" localhost "$PACS_PORT" -S -k QueryRetrieveLevel=STUDY \
    -k 0008,0050="$ACCESSION" -k 0010,0020= --no-port > "$dicomdir.move.log" 2>&1
kill "$STORESCP_PID" 2> /dev/null
wait "$STORESCP_PID" 2> /dev/null

/usr/bin/genisoimage -quiet -r -J -o "$dicomdir.iso" "$dicomdir" || exit 1
cat "$dicomdir.iso" > /dev/null
set -- "$dicomdir"/DICOMDIR/*
echo "$#"
rm -rf "$dicomdir" "$dicomdir.iso" "$dicomdir.log" "$dicomdir.move.log"
