#!/bin/sh
# The least that a disc needs: one query, a tuned receiver, one C-MOVE, genisoimage to a pipe. Nothing is verified.
# In the environment: PACS_PORT, AE and PORT (the receiver), ACCESSION, WORK. Prints the number of files received.
set -u
export TCP_NODELAY=1
dicomdir=$(mktemp -d "$WORK/dicomdir_XXXXXX")
mkdir "$dicomdir/DICOMDIR"

uid=$(/usr/bin/findscu -S -aet "$AE" -aec ABPACS -k QueryRetrieveLevel=STUDY -k AccessionNumber="$ACCESSION" \
    -k StudyInstanceUID 127.0.0.1 "$PACS_PORT" 2>&1 | sed -n 's/.*(0020,000d) UI \[\([0-9.]*\).*/\1/p')

# A session of its own, so that its process group can be ended with the child that holds the association.
setsid /usr/bin/storescp -v --fork -aet "$AE" +xa -pm +B -pdu 131072 -od "$dicomdir/DICOMDIR" "$PORT" \
    > "$dicomdir.log" 2>&1 &
receiver=$!
listening=$(printf ':%04X 00000000:0000 0A' "$PORT")
until grep -q "$listening" /proc/net/tcp; do :; done
/usr/bin/movescu -S -aet "$AE" -aec ABPACS -aem "$AE" -k QueryRetrieveLevel=STUDY -k StudyInstanceUID="$uid" \
    127.0.0.1 "$PACS_PORT" > /dev/null 2>&1
kill -s KILL -- "-$receiver"

/usr/bin/genisoimage -quiet -r -J "$dicomdir" | cat > /dev/null
set -- "$dicomdir"/DICOMDIR/*
echo "$#"
rm -rf "$dicomdir" "$dicomdir.log"
